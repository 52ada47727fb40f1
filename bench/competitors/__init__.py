"""The same jobs, done as a user of fastai, torch, timm or Lightning would do them; nothing here imports postergenre."""

"""Run `python -m postergenre new FOLDER` or `python -m postergenre tidy`."""

from postergenre.new import main

main()

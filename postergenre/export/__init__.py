"Models as files: TorchScript, a torch.export program, ONNX."

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "files": ["load_onnx", "load_program", "load_torchscript", "read_notes"],
        "job": ["export_run"],
    },
)

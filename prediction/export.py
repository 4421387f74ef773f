"""Export a trained denoiser for other runtimes: python -m prediction.export CHECKPOINT OUT [options]

OUT          a file that ends in .onnx (needs onnx and onnxscript), or in .pt2 for torch.export
--size H W   height and width of the images (the size of the training images); the batch size stays free
--weights FILE, --network NAME, --process NAME   as for ddpm_predict.py

The graph maps x_t (uint8, B x H x W), t (int64, B) and images (float32, B x channels x H x W, normalised) to logits of
p(x_0 | x_t, image), float32, B x C x H x W. The file also holds what sampling needs, as JSON: the table alpha_bar,
the classes, and the mean and standard deviation of the images. `prediction/numpy_sampler.py` draws samples from an ONNX
file with NumPy and onnxruntime alone.
"""

import argparse
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffusion.uniform import UniformDiffusion
from models import CCDM
from prediction.trained import load_model
from utils.errors import UserError, os_errors_as_user_error, run_script
from utils.paths import expand_path, write_atomically
from utils.text import visible

NAMES = ("x_t", "t", "images")
METADATA = "ccdm"
"""Name of the JSON in the file."""


def main(argv: Sequence[str]) -> None:
    """Export with the arguments of the command line.

    Raises:
        UserError: for a file of another kind, a model that cannot be exported, and a package that is not installed.
    """
    options = _parser().parse_args(argv)
    out = expand_path(options.out)
    if out.suffix not in (".onnx", ".pt2"):
        raise UserError(f"{out} ends in {out.suffix or 'nothing'}; expected .onnx or .pt2")
    model, preprocessing = load_model(options.checkpoint, "cpu", options.weights, options.network, options.process)
    size = options.size or preprocessing.size
    if size is None:
        raise UserError("the checkpoint does not say the size of its training images; set --size H W")
    if min(size) < 1:
        raise UserError(f"--size is {size[0]} {size[1]}; expected at least one pixel")
    process = model.process
    if not isinstance(process, UniformDiffusion):
        raise UserError(f"{type(process).__name__} cannot be exported; only diffusion.uniform can")
    described = {
        "alpha_bar": process.alpha_bar_cpu.tolist(), "num_classes": process.num_classes, "size": list(size),
        "image_mean": preprocessing.image_mean, "image_std": preprocessing.image_std,
        "class_names": preprocessing.class_names,
    }  # fmt: skip
    with os_errors_as_user_error(out):
        export(model, (size[0], size[1]), preprocessing.image_channels, out, described)
    print(visible(f"{out}: {out.stat().st_size / 1e6:.1f} MB, images of {size[0]} x {size[1]}"))


def export(model: CCDM, size: tuple[int, int], channels: int, out: Path, described: dict[str, Any]) -> None:
    """Write the denoiser of a model for images of that size and any batch size. Raises UserError as `main`."""
    inputs = (
        torch.zeros(2, *size, dtype=torch.uint8), torch.ones(2, dtype=torch.int64), torch.zeros(2, channels, *size),
    )  # fmt: skip
    batch = torch.export.Dim("batch", min=1)
    shapes = [{0: batch}] * len(inputs)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of PyTorch, about its own deprecations
        program = torch.export.export(_Denoiser(model).eval(), inputs, dynamic_shapes=shapes)
        text = json.dumps(described)
        if out.suffix == ".pt2":
            write_atomically(out, lambda path: _save_program(program, path, text))
            return
        onnx = torch.onnx.export(program, (), dynamo=True, input_names=NAMES, output_names=["logits"], verbose=False)
        assert onnx is not None
        onnx.model.metadata_props[METADATA] = text
        write_atomically(out, lambda path: onnx.save(path, external_data=False))


def _save_program(program: torch.export.ExportedProgram, path: Path, text: str) -> None:
    with path.open("wb") as file:  # given a path, PyTorch insists on its suffix
        torch.export.save(program, file, extra_files={METADATA: text})


class _Denoiser(nn.Module):
    """A model without its features as an input, with logits in float32."""

    def __init__(self, model: CCDM) -> None:
        super().__init__()
        self.model = model

    def forward(self, x_t: Tensor, t: Tensor, images: Tensor) -> Tensor:
        logits: Tensor = self.model(x_t, t, images)
        return logits.float()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m prediction.export", description=None)
    parser.add_argument("checkpoint", metavar="CHECKPOINT")
    parser.add_argument("out", metavar="OUT")
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"))
    for name in ("--weights", "--network", "--process"):
        parser.add_argument(name)
    return parser


if __name__ == "__main__":
    run_script(main, __doc__)

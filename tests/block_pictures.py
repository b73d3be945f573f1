"""The pictures of docs/blocks.md, drawn from the blocks. Run as a program, it draws them all again."""

from pathlib import Path

import torch

from sepwise.measure import diagram
from sepwise.nn import blocks
from sepwise.nn.blocks import Block
from sepwise.report import draw

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "pictures" / "blocks"


def drawn() -> dict[str, Block]:
    """A block for each picture, by the picture's name."""
    return {
        "depthwise": blocks.GroupedBlock(64, 64),
        "depthwise_segmented": blocks.SegmentedBlock(64, 64),
        "extreme_inception": blocks.ExtremeInception(64, 96),
        "grouped_inception": blocks.GroupedInception(64, 96, segments=3),
        "hybrid": blocks.Hybrid(64, 64),
        "hybrid_reformulated": blocks.HybridReformulated(64, 64),
        "inception": blocks.InceptionModule(192, 256, widths=(64, 96, 128, 16, 32, 32)),
        "reformulated_inception": blocks.ReformulatedInception(64, 96, segments=3),
        "resnext": blocks.ResNeXtModule(256, 256),
        "resnext_concatenated": blocks.ResNeXtConcatenated(256, 256),
        "resnext_paths": blocks.ResNeXtPaths(256, 256),
        "separable": blocks.SeparableBlock(64, 128),
        "simplified_inception": blocks.SimplifiedInception(64, 96, segments=3),
        "split_sum": blocks.SplitSum(64, 128),
    }


def picture(block: Block) -> str:
    """Drawn for an input of 28 x 28 pixels."""
    return draw(diagram(block, torch.zeros(1, block.in_channels, 28, 28)).to_dict())


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, block in drawn().items():
        (FOLDER / f"{name}.svg").write_text(picture(block), encoding="utf-8")
        print(FOLDER / f"{name}.svg")

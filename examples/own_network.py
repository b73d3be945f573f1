"""How to speed up a network of your own: fuse it, see what was fused and how fast it is, keep its weights.

python examples/own_network.py
"""

import torch
from torch import Tensor, nn

import sepwise
from sepwise.measure import measure_latency
from sepwise.sources import load_weights, save_weights


class Block(nn.Module):
    """An inverted residual: expand, filter each channel, mix; with a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 4 * channels
        self.expand = nn.Sequential(nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.SiLU())
        self.filter = nn.Sequential(
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.SiLU()
        )
        self.mix = nn.Sequential(nn.Conv2d(wide, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(self.filter(self.expand(x)))


def network() -> nn.Module:
    """Yours: anything with depthwise and pointwise convolutions, trained, in evaluation mode."""
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    return nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1), nn.SiLU(), *(Block(32) for _ in range(4)), *head).eval()


def main(path: str = "own.safetensors") -> None:
    model, picture = network(), torch.randn(1, 3, 128, 128)

    fused = sepwise.fuse(model, picture)  # refuses to answer differently
    print(fused.report)

    with torch.inference_mode():
        times = measure_latency({"before": lambda: model(picture), "after": lambda: fused(picture)})
    print(*(f"{name}: {timing}" for name, timing in times.items()), sep="\n")

    save_weights(fused, path)  # later, or elsewhere: the same architecture, fused, and these weights
    again = sepwise.fuse(network(), picture)
    load_weights(again, path)
    print("loaded again, the answers are the same:", torch.allclose(again(picture), fused(picture), atol=1e-5))


if __name__ == "__main__":
    main()

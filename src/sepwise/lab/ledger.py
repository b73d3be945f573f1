"""The ledger: what is claimed about separable convolutions, by whom, and which recipe tests it. Plain data."""

from __future__ import annotations

from dataclasses import dataclass

ARTICLE = "C.-F. Wang, A Basic Introduction to Separable Convolutions, 2018"
PAPER = "T. Ghosh, Towards a New Interpretation of Separable Convolutions, 2017, arXiv 1701.04489"
FEATURES = "question: can one separable layer learn orthogonal features?"
WHEN = "question: when should separable convolution be used?"

HOLDS, FAILS, NOT_SHOWN = "holds", "does not hold", "not shown"
VERDICTS = (HOLDS, FAILS, NOT_SHOWN)


@dataclass(frozen=True)
class Claim:
    """One claim.

    id         as it is cited: A arithmetic, U understanding, G networks on CIFAR-10
    says       the claim in one sentence
    source     who says so
    recipe     name of the recipe that tests it
    published  the numbers that the source gives, if any
    """

    id: str
    says: str
    source: str
    recipe: str
    published: str = ""


LEDGER = (
    Claim("A1", "[[3,6,9],[4,8,12],[5,10,15]] is (3,4,5)ᵀ·(1,2,3): 9 multiplications become 6", ARTICLE, "arithmetic"),
    Claim("A2", "The Sobel kernel [[-1,0,1],[-2,0,2],[-1,0,1]] is (1,2,1)ᵀ·(-1,0,1)", ARTICLE, "arithmetic"),
    Claim("A3", "Most kernels do not separate spatially: only those of rank 1 do", ARTICLE, "rank_one"),
    Claim(
        "A4",
        "A 12×12×3 picture and 256 kernels 5×5: 8×8×256 and 1,228,800 multiplications",
        ARTICLE,
        "arithmetic",
        "1,228,800",
    ),
    Claim(
        "A5",
        "The same as depthwise (4,800) and pointwise (49,152) takes 53,952",
        ARTICLE,
        "arithmetic",
        "53,952, then printed as 52,952; output printed as 12×12×256",
    ),
    Claim("A6", "With a depth multiplier of 2 the depthwise step gives 8×8×6", ARTICLE, "arithmetic"),
    Claim("A7", "7×7×3 and 128 kernels 3×3: 5×5×128; separable: 5×5×3, then 5×5×128", FEATURES, "arithmetic"),
    Claim(
        "A8",
        "N×M separates spatially into N×1 and 1×M; W×H×D into W×H×1 and 1×1×D",
        WHEN,
        "arithmetic",
    ),
    Claim("A9", "A depthwise convolution is a grouped one with as many groups as channels", PAPER, "equal_functions"),
    Claim(
        "U1",
        "One separable layer can only learn one kind of spatial feature; more pointwise kernels cannot help",
        FEATURES,
        "orthogonal",
    ),
    Claim("U2", "Spatial locations are highly correlated, channels are fairly independent", WHEN, "correlation"),
    Claim("U3", "That correlation tells which layers can be made separable", WHEN, "correlation"),
    Claim("U4", "A network that is small already is left with too few parameters to learn", ARTICLE, "width"),
    Claim("U5", "An inserted 1×1 convolution with an activation adds depth at little cost", ARTICLE, "inserted"),
    Claim(
        "G1",
        "Mean absolute difference of test error from separable convolutions, six networks",
        PAPER + ", figure 4",
        "figure4",
        "Inception 0.83, ResNeXt 0.62, reformulated Inception 0.71, strict reformulation 0.08, hybrid 0.12 points",
    ),
    Claim(
        "G2",
        "Separable convolutions are closer to the hybrid of ResNeXt and Inception than to either",
        PAPER + ", figure 4",
        "figure4",
        "0.12 against 0.62 and 0.83 points",
    ),
    Claim("G3", "The strict reformulation computes the same function", PAPER + ", figure 1", "equal_functions"),
    Claim(
        "G4",
        "An activation between depthwise and pointwise hurts: none is better than ELU, ELU better than ReLU",
        "F. Chollet, Xception, 2016, arXiv 1610.02357, figure 10; cited by the paper",
        "between",
    ),
    Claim(
        "G5",
        "Separable convolutions have little to no impact in FractalNet",
        PAPER + ", figure 5",
        "fractal",
        "6.15 % error with, 7.61 % without: the table says that they help",
    ),
    Claim(
        "G6",
        "Separable convolutions improve DarkNet tremendously",
        PAPER + ", figure 6",
        "darknet",
        "6.03 % error with, 11.9 % without",
    ),
    Claim("G7", "Deep separable networks train without residual connections, dense ones need them", PAPER, "depth"),
    Claim("G8", "Separable convolutions run faster", "all of them", "speed"),
)

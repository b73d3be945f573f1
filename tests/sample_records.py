"""The records of a conversion and of an inspection, as their commands write them; every name in them can be chosen."""

from sepwise.records import Record

MACHINE = {"processor": "Sample CPU @ 2 GHz", "cores": 2, "commit": "abc1234"}


def fact(what, value, **rest):
    return Record(what, value, machine=MACHINE, **rest)


def conversion_records(name="conv1"):
    both = [("dense", 14_716_171, 47_063_040_000, 58_864_684), ("separable", 3_901_244, 10_970_405_000, 15_604_976)]
    told = {
        "model": name,
        "title": name,
        "budget": "macs=0.25",
        "method": "spatial",
        "fitted_on": "96 crops",
        "shown_on": "4 pictures",
        "command": f"sepwise convert {name}",
        "sepwise": "0.1.0",
        "torch": "2.13.0",
    }
    facts = [fact("conversion", told)]
    for which, parameters, macs, weight_bytes in both:
        about = {"network": which}
        facts += [
            fact("network.parameters", parameters, about=about),
            fact("network.macs", macs, unit="MACs", about={**about, "size": [320, 480]}),
            fact("network.weight_bytes", weight_bytes, unit="bytes", about=about),
        ]
    how = {"dense_form": "channels_last eager", "separable_form": "compiled", "threads": 2, "size": [320, 480]}
    facts.append(fact("network.latency_ratio", 2.57, unit="x", n=11, spread=0.08, about=how))
    measured = {"f1": 0.9771, "mean_absolute_difference": 0.00772, "correlation": 0.99884, "psnr_db": None}
    facts += [fact(f"agreement.{k}", v, about={"pictures": "held-out", "count": 4}) for k, v in measured.items()]
    sizes = {"in_channels": 64, "out_channels": 128, "kernel": [3, 3]}
    facts += [
        fact(
            "layer",
            {
                "name": name,
                "form": "spatial",
                "rank": 24,
                "macs_before": 5_662_310_400,
                "macs_after": 1_100_000_000,
                "parameters_before": 73_728,
                "parameters_after": 13_824,
                "energy_kept": 0.8714,
                "effect": 3.2e-5,
                "why": f"cheapest {name}",
            }
            | sizes,
        ),
        fact(
            "layer",
            {
                "name": "stem",
                "form": "dense",
                "rank": None,
                "macs_before": 265_420_800,
                "macs_after": 265_420_800,
                "parameters_before": 1_728,
                "parameters_after": 1_728,
                "energy_kept": 1.0,
                "effect": 0.0,
                "why": "three input channels leave nothing to separate",
            }
            | sizes,
        ),
        fact(
            "curve",
            {"macs_fraction": 0.25, "agreement": 0.977, "metric": "f1", "label": name},
            about={"kind": "this conversion"},
        ),
        fact(
            "curve",
            {"macs_fraction": 0.12, "agreement": 0.938, "metric": "f1", "label": ""},
            about={"kind": "other budget"},
        ),
        fact(
            "curve",
            {"macs_fraction": 0.24, "agreement": 0.15, "metric": "f1", "label": ""},
            about={"kind": "data-free"},
        ),
        fact(
            "picture",
            {
                "name": name,
                "input": "input.png",
                "dense": "dense.png",
                "separable": "separable.png",
                "difference": "difference.png",
                "f1": 0.9642,
                "mean_absolute_difference": 0.0131,
            },
        ),
        fact("kernels", {"layer": name, "before": "kernels.png", "after": "kernels.png"}),
        fact("a.kind.nobody.knows", {"anything": 1}),
    ]
    return facts


def inspection_records(name="layer1.conv"):
    energy = {"depthwise": {"1": 0.512, "2": 0.734}, "spatial": {"1": 0.803, "2": 0.957}}
    common = {"form_today": "dense", "spatial_rank": 2.4, "arithmetic_intensity": 51.5}
    return [
        fact(
            "inspection.total",
            {"model": name, "macs": 1_814_073_344, "parameters": 11_689_512, "caveat": "weights only"},
        ),
        fact(
            "inspection.layer",
            {
                "name": name,
                "weight_shape": [64, 64, 3, 3],
                "macs": 900_000_000,
                "macs_share": 0.75,
                "energy": energy,
                "verdict": "separate",
                "reason": f"keeps 95 % {name}",
            }
            | common,
        ),
        fact(
            "inspection.layer",
            {
                "name": "fc",
                "weight_shape": [10, 64, 1, 1],
                "macs": 300_000_000,
                "macs_share": 0.25,
                "energy": {},
                "verdict": "leave",
                "reason": "one pixel",
            }
            | common
            | {"spatial_rank": None},
        ),
        fact("kernels", {"layer": name, "picture": "kernels.png"}),
    ]


def fusion_records(name="blocks.0.conv_dw"):
    latency = {"ratio": 1.94, "low": 1.9, "high": 2.0, "rounds": 40, "threads": 1}
    latency |= {"stock_form": "folded channels_last", "stock_ms": 21.4, "fused_ms": 11.0}
    told = {
        "model": name,
        "weights": f"{name}.safetensors",
        "size": [224, 256],
        "fused": {name: "depthwise 3x3, relu6, pointwise 32 to 16"},
        "alone": {"stem": "dense 3x3, 3 to 32"},
        "slower": {"head": 1.25},
        "left": {"se": f"its output is read 2 times ({name})"},
        "merged": {"rep": [f"{name}.bn"], "alike": []},
        "norms": 49,
        "difference": 1.1e-6,
        "budget": 1e-4,
        "latency": latency,
    }
    prepared = {"size": [224, 256], "resized": [256, 293], "interpolation": "bicubic", "mean": [0.5], "std": [0.2]}
    answers = {
        "source": f"pictures of {name}",
        "count": 500,
        "same": 499,
        "largest": 1.9e-5,
        "relative": 2.4e-6,
        "labelled": 400,
        "right_before": 300,
        "right_after": 299,
        "skipped": [f"{name}.png cannot be read"],
        "preparation": prepared | {"by": f"timm's pretrained_cfg of {name}"},
    }
    seen = {"name": name, "picture": "input.png", "relative": 2.4e-6, "before_ms": 21.0, "after_ms": 10.5}
    tops = {"label": f"a {name}", "before": [[name, 0.81], ["dog", 0.12]], "after": [["dog", 0.66], [name, 0.2]]}
    about = {"command": f"sepwise fuse {name}", "sepwise": "0.1.0", "torch": "2.13.0"}
    return [fact("fusion", told, about=about), fact("fusion.pictures", answers), fact("fusion.picture", seen | tops)]

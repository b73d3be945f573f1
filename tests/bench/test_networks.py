"""Networks made ready for all runtimes: settled, answered in float64, and every planted fault seen."""

# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportArgumentType=false

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import nn

from bench import networks, prepared
from bench.answer import DTYPE, NETWORK_BOUND, judge
from bench.candidates import ANSWER, PICTURES, NetworkJob, as_pixels, eager, ours, pytorch
from bench.networks import NETWORKS, Network
from sepwise.conversion import Plan, convert
from sepwise.errors import SepwiseError

SMALL = Network("small", "timm:mobilenetv2_035", (64, 64))
JOB_CLASSES = {"float32": ("highest", "high"), "bfloat16": ("bf16",)}


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def job(request, tmp_path_factory):
    for package in ("timm", "onnxscript"):
        if find_spec(package) is None:
            pytest.skip(f"needs {package}")
    folder = tmp_path_factory.mktemp(request.param)
    prepared.prepare(SMALL, request.param, folder, [1, 3])
    return NetworkJob(SMALL, folder, 3, request.param, 1, JOB_CLASSES[request.param])


@pytest.fixture(autouse=True)
def switches():
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.mkldnn.matmul.fp32_precision = "none"  # type: ignore[attr-defined]
    torch.backends.fp32_precision = "none"  # type: ignore[attr-defined]


def answer_of(job):
    return np.load(job.folder / ANSWER)


def test_networks_are_chosen_by_name():
    assert [n.name for n in networks.select(["xception41", "mobilenetv1_100", "xception41"])] == [
        "xception41",
        "mobilenetv1_100",
    ]
    assert networks.select([]) == list(NETWORKS.values())
    with pytest.raises(SepwiseError, match="there is no network 'vgg'; give some of efficientnet_lite0, "):
        networks.select(["vgg"])


@pytest.mark.parametrize("network", [n for n in NETWORKS.values() if n.converted], ids=lambda n: n.name)
def test_every_plan_can_be_read_and_converts(network):
    assert Plan.load(network.plan).converted


def test_plans_are_those_of_the_networks():
    assert {n.plan for n in NETWORKS.values() if n.converted} == set(networks.PLANS.glob("*.json"))


def test_a_folder_holds_what_all_runtimes_need(job):
    pictures, answer = np.load(job.folder / PICTURES), answer_of(job)
    assert pictures.shape == (3, 3, 64, 64)
    assert answer.shape == (3, 1, 1, 1000)
    assert answer.dtype == np.float64
    assert np.array_equal(job.x(), pictures)
    assert np.array_equal(NetworkJob(SMALL, job.folder, 1, job.dtype, 1, ()).x(), pictures[:1])
    assert 0.1 < answer.std() < 10
    assert np.abs(answer[0] - answer[1]).max() > 0.01
    kind = getattr(torch, job.dtype)
    for numbers in (torch.from_numpy(pictures), *prepared.loaded(SMALL, job.folder).parameters()):
        assert torch.equal(numbers, numbers.to(kind).float())


def test_the_first_pictures_do_not_depend_on_the_batch():
    assert torch.equal(prepared.pictures(4, (8, 9), 0)[:2], prepared.pictures(2, (8, 9), 0))
    assert not torch.equal(*prepared.pictures(2, (8, 9), 0))


def test_activations_neither_vanish_nor_explode(job):
    model, sizes = prepared.loaded(SMALL, job.folder), []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda m, x, y: sizes.append(float(y.std())))
    with torch.no_grad():
        model(torch.from_numpy(job.x()))
    assert len(sizes) > 40
    assert min(sizes) > 1e-2
    assert max(sizes) < 1e2


def test_branches_are_not_silent_and_norms_after_pooling_scale_no_rounding_up():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.gamma, self.conv = nn.Parameter(torch.full((4,), 1e-6)), nn.Conv2d(3, 4, 1)
            self.norm, self.last = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

        def forward(self, x):
            y = self.norm(self.conv(x)) * self.gamma.view(1, -1, 1, 1)
            return self.last(y.mean((2, 3), keepdim=True))

    model = Scaled()
    prepared.settled(model, [prepared.pictures(8, (32, 32), 1)])
    assert model.gamma.min() >= 0.5
    assert not model.training
    with torch.no_grad():
        norm = model.norm(model.conv(prepared.pictures(8, (32, 32), 1)))
        assert torch.allclose(norm.mean((0, 2, 3)), model.norm.bias, atol=1e-4)
        mean, variance = model.last.running_mean, model.last.running_var
        assert mean is not None
        assert variance is not None
        assert (variance >= mean.square()).all()


@torch.no_grad()
def output_of(job, model):
    kind = getattr(torch, job.dtype)
    return as_pixels(model.to(kind)(torch.from_numpy(job.x()).to(kind)).float().numpy())


def test_ours_and_stock_networks_are_accepted(job):
    for runtime in (ours, eager):
        built = runtime.network_builders(job)
        for name, make in built.items():
            candidate = make()
            candidate.settle()
            accuracy = name.rpartition(", ")[2] if runtime is ours else job.classes[0]
            assert judge(candidate.answer(), answer_of(job)).refusal(NETWORK_BOUND[accuracy]) is None, name
    assert set(ours.network_builders(job)) == {f"fuse, {accuracy}" for accuracy in job.classes}
    assert {"eager", "eager, folded"} <= set(eager.network_builders(job))


def test_a_stock_network_is_made_when_it_is_asked_for_and_once(job, monkeypatch):
    made = []

    def noted(*given, **options):
        made.append(given)
        return convert(*given, **options)

    monkeypatch.setattr(pytorch, "convert", noted)
    forms = pytorch.network_forms(job)
    forms[""]()
    assert made == []
    assert forms[", folded"]() is forms[", folded"]()
    assert len(made) == 1


def test_a_stock_network_is_made_without_the_switch_of_another_candidate(job, monkeypatch):
    """torch.export cannot trace some networks under it, and a peer that cannot be built is not timed."""
    switches = []

    def noted(model, x):
        switches.append(torch.backends.fp32_precision)  # type: ignore[attr-defined]
        return model

    monkeypatch.setattr(pytorch, "stock", noted)
    pytorch.permit("bf16")
    pytorch.network_forms(job)[""]()
    assert switches == ["none"]


def test_what_ours_fused_is_told(job):
    assert ours.network_builders(job)[f"fuse, {job.classes[0]}"]().chose.startswith("17 fused, ")


def test_onnx_runtimes_give_the_answer(job):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    from bench.candidates import onnx_runtime, open_vino

    built = {**onnx_runtime.network_builders(job), **open_vino.network_builders(job)}
    assert set(built) >= {"openvino NCHW", "openvino NHWC"}
    for name, make in built.items():
        assert judge(make().answer(), answer_of(job)).refusal(NETWORK_BOUND[job.classes[0]]) is None, name


def test_one_weight_off_is_refused_in_float32(job):
    if DTYPE["highest"] != job.dtype:
        pytest.skip("one weight of many is less than what bfloat16 rounds")
    model = prepared.loaded(SMALL, job.folder)
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    for conv in (convs[0], convs[len(convs) // 2], convs[-1]):
        weights = conv.weight.detach().view(-1)
        place = int(weights.abs().argmax())
        right = weights[place].item()
        weights[place] = 0.9 * right
        verdict = judge(output_of(job, model), answer_of(job))
        weights[place] = right
        assert verdict.refusal(NETWORK_BOUND["high"])
    assert judge(output_of(job, model), answer_of(job)).refusal(NETWORK_BOUND["highest"]) is None


def test_one_block_left_out_is_refused(job):
    model = prepared.loaded(SMALL, job.folder)
    with_shortcut = [(stage, place) for stage in (1, 2, 3, 4, 5) for place in range(1, len(model.blocks[stage]))]
    for stage, place in with_shortcut:
        kept = model.blocks[stage][place]
        model.blocks[stage][place] = nn.Identity()
        verdict = judge(output_of(job, model), answer_of(job))
        model.blocks[stage][place] = kept
        assert verdict.refusal(NETWORK_BOUND[job.classes[-1]]), (stage, place)


def test_another_picture_is_refused(job):
    other = np.roll(answer_of(job), 1, axis=0)
    assert judge(other.astype(np.float32), answer_of(job)).refusal(NETWORK_BOUND[job.classes[-1]])


def test_a_converted_network_is_stock_for_peers_and_the_same(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    from sepwise import plan
    from sepwise.sources.models import load_model

    small = Network("converted", "zoo:resnet20", (32, 32), converted=True)
    monkeypatch.setattr(networks, "PLANS", tmp_path)
    dense = prepared.settled(load_model(small.model).model, [prepared.pictures(8, small.size, 1)])
    plan(dense, torch.randn(2, 3, 32, 32), budget={"macs": 0.6}, forms=["depthwise", "spatial"]).save(small.plan)
    prepared.prepare(small, "bfloat16", tmp_path, [2])
    job = NetworkJob(small, tmp_path, 2, "bfloat16", 1, ("bf16",))
    for runtime in (ours, eager):
        for name, make in runtime.network_builders(job).items():
            assert judge(make().answer(), answer_of(job)).refusal(NETWORK_BOUND["bf16"]) is None, name
    assert set(eager.network_builders(job)) == {"eager"}  # its norms are folded already
    peer = prepared.stock(prepared.loaded(small, tmp_path), torch.from_numpy(job.x()))
    assert not any(type(m).__module__.startswith("sepwise") for m in peer.modules())

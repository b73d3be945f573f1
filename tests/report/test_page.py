"""The page as a customer gets it: one file, every measured fact, hostile names harmless, nothing half-written."""

import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from sample_records import conversion_records, fact, fusion_records, inspection_records

from sepwise import extras, records, report
from sepwise.errors import MissingExtraError, OutputError, PictureError, SepwiseError
from sepwise.report.pictures import difference_picture, kernel_grid, map_picture

HOSTILE = "<script>alert('x')</script>\"' onerror=\"alert(1) & {{ 7 * 7 }}"


@pytest.fixture
def folder(tmp_path):
    """A folder with the pictures that the sample records name, and no records yet."""
    edges = np.linspace(0, 1, 120)[None].repeat(100, 0)
    map_picture(edges).convert("RGB").save(tmp_path / "input.png")
    map_picture(edges).save(tmp_path / "dense.png")
    map_picture(edges**2).save(tmp_path / "separable.png")
    difference_picture(edges**2 - edges).save(tmp_path / "difference.png")
    kernel_grid(np.random.default_rng(0).normal(size=(4, 4, 3, 3))).save(tmp_path / "kernels.png")
    return tmp_path


def page(folder, facts):
    (folder / "records.jsonl").unlink(missing_ok=True)
    records.append(folder / "records.jsonl", facts)
    return report.build(folder).read_text(encoding="utf-8")


class Seen(HTMLParser):
    """What a browser would see: tags with attributes, text, and whether the tags close."""

    VOID = frozenset({"meta", "link", "img", "input", "br", "wbr"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.said, self.ids = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for key, value in attrs if key == "id"]
        if tag not in self.VOID and tag not in ("line", "circle", "polyline"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("line", "circle", "polyline"):
            assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.said.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.said))


EACH = pytest.mark.parametrize("make", [conversion_records, inspection_records, fusion_records])


@EACH
def test_the_page_is_self_contained(folder, make):
    text = page(folder, make())
    seen = Seen(text)
    assert not seen.open
    assert len(set(seen.ids)) == len(seen.ids)
    for tag, attributes in seen.tags:
        for key in ("src", "href", "srcset", "data", "action", "poster"):
            if key in attributes:
                assert attributes[key].startswith("data:"), (tag, attributes)
    assert "http://" not in text
    assert "https://" not in text
    assert "file:" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert "default-src 'none'" in text
    assert str(folder) not in text


def test_the_first_screen_says_the_measured_facts(folder):
    text = Seen(page(folder, conversion_records())).text
    assert "4.3×\u00a0fewer multiplications, 2.6×\u00a0faster, edges agree at F1 0.977" in page(
        folder, conversion_records()
    )
    for said in (
        "14,716,171",
        "3,901,244",
        "47,063,040,000",
        "47.1 G",
        "11.0 G",
        "3.8×",
        "58.9 MB",
        "15.6 MB",
        "480×320",
        "0.0077",
        "0.9988",
        "last eager",
        "compiled",
        "11 rounds",
        "0.08×",
        "2 threads",
        "Sample CPU @ 2 GHz",
        "4 held-out pictures",
    ):
        assert said in text, said


def test_layers_curve_pictures_and_reproduction_are_there(folder):
    html = page(folder, conversion_records())
    text = Seen(html).text
    for said in (
        "spatial · rank 24",
        "87.1 %",
        "13,824",
        "of 73,728",
        "3.2×10⁻⁵",
        "5.66 G",
        "1.10 G",
        "5.1×",
        "three input channels leave nothing to separate",
        "1 of 2 convolutions",
        "64 → 128",
        "0.964",
        "0.938",
        "0.150",
        "data-free",
        "sepwise convert conv1",
        "abc1234",
        "2.13.0",
    ):
        assert said in text, said
    assert html.count('src="data:image/') == 6
    assert 'style="width:100.00%"' in html
    assert "full colour from ±0.25" in html


def test_a_budget_written_as_a_table_is_told_in_words(folder):
    assert "25.0 % of the MACs" in page(folder, [fact("conversion", {"model": "m", "budget": {"macs": 0.25}})])


def test_losses_are_told_as_losses(folder):
    facts = [replace(r, value=0.8) if r.what == "network.latency_ratio" else r for r in conversion_records()]
    html = page(folder, facts)
    assert "1.2×\u00a0slower" in html
    assert "faster" not in Seen(html).text


def test_the_fused_network_has_a_row(folder):
    about = {"dense_form": "channels_last eager", "pairs": 13, "left": 4, "threads": 2, "size": [320, 480]}
    fused = fact("network.fused_latency_ratio", 3.14, unit="x", n=11, spread=0.1, about=about)
    text = Seen(page(folder, [*conversion_records(), fused])).text
    assert "Latency, fused for one input of 480×320 pixels" in text
    assert "last eager 13 of 17 layers as one operation each 3.1× faster" in text
    assert "2.6× faster" in text


def test_one_form_alone_stands_beside_the_conversion(folder):
    alone = {"form": "depthwise", "metric": "f1", "agreement": 0.812, "latency_ratio": 0.8, "fused_latency_ratio": 3.2}
    told = [fact("alone", alone), fact("alone", {"form": "cp", "why": "it cannot meet the budget"})]
    text = Seen(page(folder, [*conversion_records(), *told])).text
    assert "This conversion 0.977 2.6× faster –" in text
    assert "Depthwise layers alone 0.812 1.2× slower 3.2× faster" in text
    assert "Cp" not in text
    assert "The same budget, one form" not in Seen(page(folder, [*conversion_records(), told[1]])).text


def test_a_fused_network_that_was_not_measured_has_no_row(folder):
    missing = fact("network.fused_latency_ratio", None, about={"why": "fuse: it would answer differently"})
    assert "Latency, fused" not in Seen(page(folder, [*conversion_records(), missing])).text


def test_the_newest_record_counts(folder):
    html = page(folder, [*conversion_records(), fact("agreement.f1", 0.5123)])
    assert "edges agree at F1 0.512" in html


def test_the_inspection_page_shows_layers_and_verdicts(folder):
    text = Seen(page(folder, inspection_records())).text
    for said in (
        "2 convolutions, 1.20 G multiplications, half of them in 1 layer",
        "1 separate",
        "1 leave",
        "11,689,512",
        "75.0 %",
        "64×64×3×3",
        "at rank 1 · 2",
        "one pixel",
        "51.5",
        "2.4",
        "weights only",
        "MACs",
    ):
        assert said in text, said
    assert re.search(r"spatial\s+80\s+95", text), "energy kept is rounded down"


def test_answers_of_a_classifier_are_compared(folder):
    value = {"name": "cat", "input": "input.png", "dense_top": [["cat", 0.81], ["dog", 0.12]]}
    same = value | {"separable_top": [["cat", 0.66], ["frog", 0.2]]}
    other = value | {"separable_top": [[HOSTILE, 0.66]]}
    assert "same first answer" in page(folder, [fact("picture", same)])
    html = page(folder, [fact("picture", other), fact("agreement.top1", 0.911)])
    assert "another first answer" in html
    assert "same answer on 91.1 % of the pictures" in html
    assert "81.0 %" in html
    assert "<script>alert" not in html


@EACH
def test_hostile_names_are_text(folder, make):
    plain, hostile = (Seen(page(folder, make(name))) for name in ("plain", HOSTILE))
    assert [tag for tag, _ in plain.tags] == [tag for tag, _ in hostile.tags]
    assert [sorted(a) for _, a in plain.tags] == [sorted(a) for _, a in hostile.tags]
    assert "alert('x')" in hostile.text
    assert "{{ 7 * 7 }}" in hostile.text


@EACH
def test_any_kind_of_record_may_be_missing(folder, make):
    kinds = {r.what.partition(".")[0] + "." + r.what.partition(".")[2] for r in make()}
    for kind in kinds:
        left = [r for r in make() if not (r.what + ".").startswith(kind.rstrip(".") + ".")]
        assert not left or not Seen(page(folder, left)).open


@pytest.mark.parametrize("number", range(len(conversion_records())))
def test_any_single_record_of_a_conversion_makes_a_page(folder, number):
    record = conversion_records()[number]
    if record.what == "a.kind.nobody.knows":
        with pytest.raises(SepwiseError, match="no record of a conversion, a fusion, an inspection or the lab, only a"):
            page(folder, [record])
    else:
        assert not Seen(page(folder, [record])).open


def test_the_page_of_a_fused_network(folder):
    text = Seen(page(folder, fusion_records())).text
    for said in (
        "1.9× faster, the same first answer on 499 of 500 pictures",
        "blocks.0.conv_dw.safetensors",
        "resized to cover 293×256 (bicubic), the middle 256×224 cut out; mean 0.5, deviation 0.2;",
        "as timm's pretrained_cfg of blocks.0.conv_dw says",
        "fastest stock form: folded channels_last 21.40 ms",
        "fused 11.00 ms 1.9× faster",
        "quartiles 1.9× to 2.0×; 1 thread, Sample CPU @ 2 GHz",
        "99.8 % 499 of 500",
        "2.4×10⁻⁶",
        "75.0 %",
        "299 of 400 pictures with labels",
        "1 left out; the first: blocks.0.conv_dw.png cannot be read",
        "labelled a blocks.0.conv_dw another first answer",
        "21.0 ms before, 10.5 ms after",
        "81.0 %",
        "66.0 %",
        "1 of 2 depthwise or separable convolutions run as one operation each; 49 normalizations",
        "depthwise 3x3, relu6, pointwise 32 to 16",
        "its output is read 2 times (blocks.0.conv_dw)",
        "head 1.2×",
        "rep blocks.0.conv_dw.bn",
        "alike what it reads",
        "sepwise fuse blocks.0.conv_dw",
    ):
        assert said in text, said


def test_a_fused_network_that_lost_time_or_answers_no_classes(folder):
    told, answers, seen = fusion_records()
    slower = replace(told, value=told.value | {"latency": told.value["latency"] | {"ratio": 0.8}})
    maps = replace(answers, value=answers.value | {"same": None, "right_before": None, "right_after": None})
    bare = replace(seen, value=seen.value | {"before": [], "after": [], "label": None})
    text = Seen(page(folder, [slower, maps, bare])).text
    assert "1.2× slower, outputs differ by 2.4×10⁻⁶ of the largest" in text
    assert "faster than" not in text
    assert "first answer " not in text.replace("another first answer comes before all others", "")


def test_missing_sections_leave_no_heading(folder):
    html = page(folder, [r for r in conversion_records() if r.what.startswith(("conversion", "network"))])
    for heading in ("Side by side", "How far it goes", "Layer by layer", "Kernels", "Agreement with"):
        assert heading not in Seen(html).text


def test_the_layers_say_for_which_input_they_are_counted(folder):
    record = fact("layer", {"name": "conv9", "form": "dense"}, about={"size": [200, 224]})
    assert "on one scale, for one input of 224×200 pixels." in Seen(page(folder, [record])).text


def test_hostile_forms_of_latency_are_text(folder):
    record = fact("network.latency_ratio", 2.0, about={"dense_form": HOSTILE, "separable_form": "channels_last"})
    html = page(folder, [record])
    assert "<script>alert" not in html
    assert "channels_<wbr>last" in html


def test_a_thin_layer_record_still_has_a_row(folder):
    assert "conv9" in page(folder, [fact("layer", {"name": "conv9", "form": "dense"})])


@pytest.mark.parametrize("content", [None, ""])
def test_no_records_is_one_clear_error(tmp_path, content):
    if content is not None:
        (tmp_path / "records.jsonl").write_text(content)
    with pytest.raises(SepwiseError, match=r"a report needs measured records and .*records\.jsonl holds none"):
        report.build(tmp_path)


def test_a_record_that_lacks_a_key_is_named(folder):
    with pytest.raises(SepwiseError, match="a record 'layer' lacks form; it holds name"):
        page(folder, [fact("layer", {"name": "conv1"})])
    with pytest.raises(SepwiseError, match="the record 'layer' holds 3, expected a table with name, form"):
        page(folder, [fact("layer", 3)])


def test_a_failure_leaves_the_old_page_and_nothing_half_written(folder):
    html = page(folder, conversion_records())
    (folder / "dense.png").unlink()
    before = sorted(p.name for p in folder.iterdir())
    with pytest.raises(PictureError, match=r"'dense\.png', which is not in"):
        report.build(folder)
    assert sorted(p.name for p in folder.iterdir()) == before
    assert (folder / "report.html").read_text(encoding="utf-8") == html


def test_a_failure_while_writing_leaves_nothing(folder, monkeypatch):
    records.append(folder / "records.jsonl", conversion_records())

    def half(path, text, encoding):
        path.write_bytes(text[:100].encode(encoding))
        raise OSError("disk full")

    before = sorted(p.name for p in folder.iterdir())
    monkeypatch.setattr("pathlib.Path.write_text", half)
    with pytest.raises(OSError, match="disk full"):
        report.build(folder)
    assert sorted(p.name for p in folder.iterdir()) == before


def test_the_page_goes_where_it_is_told(folder, tmp_path_factory):
    records.append(folder / "records.jsonl", conversion_records())
    target = tmp_path_factory.mktemp("elsewhere") / "page.html"
    assert report.build(folder, target) == target
    assert target.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert not (folder / "report.html").exists()
    with pytest.raises(OutputError, match="does not exist"):
        report.build(folder, folder / "nowhere" / "page.html")


def test_without_jinja_the_sentence_says_how_to_install(folder, monkeypatch):
    records.append(folder / "records.jsonl", conversion_records())

    def absent(module):
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr(extras.importlib, "import_module", absent)
    with pytest.raises(
        MissingExtraError, match=r"jinja2 is needed for the HTML report .* pip install 'sepwise\[report\]'"
    ):
        report.build(folder)


def test_the_room_loads_neither_torch_nor_optional_packages():
    code = (
        "import sys, sepwise.report; print([m for m in ('torch', 'jinja2', 'PIL', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""The main job: a dense network and pictures in; a separable network, its plan, a program and a report out."""

from __future__ import annotations

from torch import nn

from .. import records, report
from ..conversion import Plan, Survey, check_budget, convert, survey
from ..conversion.agreed import agreement_on
from ..conversion.clock import Clock
from ..conversion.planning import parts_for, plan_within
from ..conversion.times import Times
from ..extras import require
from ..files import whole_folder
from ..graph import export, save_program
from ..ops import keep_freed_memory
from ..saving import save_onnx
from ..sources.weights import save_weights
from .comparing import compared
from .facts import facts_of
from .formats import NEEDS
from .latency import latency
from .others import alone, beside, curve_of, front_of
from .outcome import Outcome
from .pictured import kernels_of, pictures_of
from .progress import Progress
from .recovering import recovered, won
from .request import Job
from .results import RECORDS, check_results
from .summary import outcome
from .unfinished import Unfinished


def run(job: Job) -> Outcome:
    """Do the whole job; the folder appears at the very end, whole, and what was kept of the way there is removed."""
    check_results(job.out, job.overwrite)
    for module in ("safetensors", "jinja2", "PIL", *(["lightning_fabric"] if job.recovery else [])):
        require(module, "converting a model")
    for module in NEEDS["onnx"] if job.onnx else ():
        require(module, "writing ONNX")
    if job.plan is None:
        check_budget(job.budget)
    keep_freed_memory()  # walks over large pictures would else spend a third of their time on new memory
    dense, pictures = job.loaded.model, [x for _, x in job.shown]
    with Unfinished(job.out, job.options, job.resume) as unfinished, Progress() as progress:
        found, plan, times, separable = _converted(job, dense, unfinished, progress)
        made, losses = {"fitted on pictures": separable}, []
        if job.recovery:
            separable, losses = recovered(separable, dense, job.recovery, unfinished.checkpoint, progress)
            made["fitted, then trained without labels"] = separable
        progress("measure", 0, 3)
        program = export(separable, pictures[0])
        progress("measure", 1, 3)
        agreed = agreement_on(separable, dense, pictures)
        progress("measure", 2, 3)
        others = {} if found is None else beside(found, plan, job)
        networks = {form: model for form, model in others.items() if isinstance(model, nn.Module)}
        timed = latency(dense, {"separable": separable, **networks}, pictures[0])
        progress("measure", 3, 3)
        facts = facts_of(job, plan, dense, separable, agreed, timed["separable"])
        if job.recovery:
            before = agreement_on(made["fitted on pictures"], dense, pictures)
            facts.append(won(job.recovery, losses, before, agreed))
        facts += [alone(form, model, dense, pictures, timed) for form, model in others.items()]
        if found is not None:
            curve = curve_of(found, dense, pictures, facts, job, progress)
            facts += [*curve, *front_of(found, plan, times, curve, job)]
        if job.compare:
            facts += compared(dense, plan, made, pictures, progress)
        with whole_folder(job.out, job.overwrite) as folder:
            save_weights(separable, folder / "model.safetensors")
            plan.save(folder / "plan.json")
            save_program(program, folder / "model.pt2")
            if job.onnx:
                save_onnx(separable, pictures[0], folder / "model.onnx")
            facts += [*pictures_of(job, dense, separable, agreed.kind, folder)]
            facts += [*kernels_of(dense, separable, plan, folder)]
            records.append(folder / RECORDS, facts)
            report.build(folder)
    onnx = ["model.onnx"] if job.onnx else []
    files = ["report.html", "model.safetensors", "model.pt2", *onnx, "plan.json", RECORDS]
    return outcome(job.loaded.name, job.shown_on, job.out, files, plan, facts)


def _converted(
    job: Job, dense: nn.Module, unfinished: Unfinished, progress: Progress
) -> tuple[Survey | None, Plan, Times | None, nn.Module]:
    """The survey, where there is no plan to carry out; the plan, its times, and the network fitted by it."""
    found, times, fit = None, None, job.fit
    earlier = unfinished.converted(dense)
    plan, separable = earlier or (job.plan, None)
    if job.plan is None:
        fit, held = parts_for(job.budget, job.fit)  # what was measured to agree was fitted without `held`
        kept = unfinished.survey(dense, fit, job.forms, job.batch_norm)
        found = survey(dense, fit, forms=job.forms, batch_norm=job.batch_norm, progress=progress, kept=kept)
        if plan is None:
            plan, times = plan_within(dense, found, fit[0], fit, held, job.budget, job.minimise, progress)
        elif plan.latency:
            times = Clock(found, fit[0], progress=progress).times()
    assert plan is not None
    if separable is None:
        separable = convert(dense, plan, fit, iterations=job.iterations, progress=progress)
        unfinished.keep(plan, separable)
    return found, plan, times, separable

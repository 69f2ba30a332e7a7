"""Commands around the camera: aim it, find slices in photographs, train what looks first, measure the whole path."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from sliceloop.config import read_section
from sliceloop.logs import configure_logs
from sliceloop.stopping import stop_on_signals

camera_app = typer.Typer()
"""`sliceloop aim`, `locate`, `capture-views`."""
capture_bench_app = typer.Typer()
"""`sliceloop bench capture`, `capture-page`, `capture-score`."""
intake_app = typer.Typer(no_args_is_help=True, help="The network that looks first: a chest slice, and which way round?")


@camera_app.command()
def aim(
    device: Annotated[str | None, typer.Argument(help="Camera number, file, address or GStreamer string.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", envvar="SLICELOOP_CONFIG", help="TOML file with the settings.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print what one frame shows, as JSON.")] = False,
) -> None:
    """Show the camera's picture in the terminal, with the slice's outline and what to do next; Ctrl-C ends it."""
    from edge_agent.capture.webcam_settings import WebcamSettings
    from edge_agent.locate import locate
    from edge_agent.settings import EdgeSettings
    from sliceloop.aim_run import run_aim

    configure_logs("error")
    chosen = read_section(config, "edge", EdgeSettings).webcam if config is not None else None
    settings = chosen or WebcamSettings()
    if device is not None:
        settings = settings.model_copy(update={"device": device})
    run_aim(settings, locate, stop_on_signals(), once=once)


@camera_app.command()
def locate(
    images: Annotated[list[Path], typer.Argument(help="Photographs, PNG or JPEG.")],
    json: Annotated[bool, typer.Option("--json", help="Print a list of objects instead of lines.")] = False,
) -> None:
    """Find the slice in photographs; ends with 1 where a file shows none, or cannot be read."""
    from sliceloop.locate_run import run_locate

    raise typer.Exit(1 if run_locate(images, as_json=json) else 0)


@camera_app.command("capture-views")
def capture_views(
    data: Annotated[Path, typer.Argument(help="The data set that a training will learn from.")],
    out: Annotated[Path, typer.Option(help="Folder for the views, to be given to `sliceloop train --views`.")],
    severities: Annotated[str, typer.Option(help="From 0 (clean) over 1 (a careful person) to 3.")] = "0.6,1,1.6",
    views: Annotated[int, typer.Option(min=1, help="Views of each slice at each severity.")] = 1,
    split: Annotated[Literal["train", "val", "both"], typer.Option(help="A training needs both.")] = "both",
    exclude_source: Annotated[list[str] | None, typer.Option(help="Leave a source out; may be repeated.")] = None,
    patient_rule: Annotated[str | None, typer.Option(help="Of a class folder: the patient's id in a path.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps decoded slices.")] = None,
    seed: int = 0,
) -> None:
    """Show training slices to a simulated webcam and keep what the edge would read; after a stop it goes on."""
    from sliceloop.capture_bench.cases import parse_severities
    from sliceloop.captured_views import SPLITS, ViewsRequest
    from sliceloop.captured_views import capture_views as make_views

    request = ViewsRequest(
        data=data,
        out=out,
        splits=SPLITS if split == "both" else (split,),
        severities=parse_severities(severities),
        views=views,
        exclude_sources=tuple(exclude_source or ()),
        patient_rule=patient_rule,
        cache=cache,
        seed=seed,
    )
    make_views(request, stop_on_signals())


@intake_app.command("train")
def intake_train(
    out: Annotated[Path, typer.Option(help="Folder for intake.onnx and its story, intake.json.")],
    data: Annotated[Path | None, typer.Argument(help="Learn from this data set's train split too.")] = None,
    patient_rule: Annotated[str | None, typer.Option(help="Of a class folder: the patient's id in a path.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps decoded slices.")] = None,
    people: Annotated[int, typer.Option(min=1, help="Phantoms that are drawn.")] = 1800,
    epochs: Annotated[int, typer.Option(min=1)] = 12,
    seed: int = 0,
) -> None:
    """Train the network that looks first: some minutes on one core, on phantoms and simulated scenes."""
    from sliceloop.intake_run import DataChoice, train_intake_folder
    from training.intake.train import IntakePlan

    choice = None if data is None else DataChoice(data, patient_rule, cache)
    train_intake_folder(out, IntakePlan(people=people, epochs=epochs, seed=seed), choice, stop_on_signals())


@intake_app.command("check")
def intake_check(
    data: Annotated[Path, typer.Argument(help="A data set; its slices are shown upright, turned and mirrored.")],
    network: Annotated[Path | None, typer.Option(help="An intake.onnx; default: the one that comes along.")] = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    others: Annotated[Path | None, typer.Option(help="Folder of pictures that are no chest slices.")] = None,
    patient_rule: Annotated[str | None, typer.Option(help="Of a class folder: the patient's id in a path.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps decoded slices.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the counts here.")] = None,
) -> None:
    """Tell by source what becomes of upright, turned and mirrored slices, and of pictures that are none."""
    from sliceloop.intake_run import DataChoice, IntakeCheck, check_intake

    request = IntakeCheck(
        DataChoice(data, patient_rule, cache), network=network, split=split, others=others, json_file=json
    )
    check_intake(request, stop_on_signals())


@capture_bench_app.command("capture")
def bench_capture(
    data: Annotated[Path | None, typer.Argument(help="Folder of the labelled slices; or --phantoms.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for capture.md, .json, plots, and the frames so far.")] = Path(
        "capture-bench"
    ),
    model: Annotated[Path | None, typer.Option(help="A bundle's folder; without one the outline is measured.")] = None,
    plain_model: Annotated[
        Path | None, typer.Option(help="A bundle trained without the simulator, for the paper's path.")
    ] = None,
    phantoms: Annotated[int, typer.Option(min=0, help="Show so many phantom slices instead of a data set.")] = 0,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    slices: Annotated[int | None, typer.Option(min=1, help="So many, drawn evenly over the classes.")] = None,
    severities: Annotated[str, typer.Option(help="From 0 (clean) over 1 (a careful person) to 3.")] = "0,0.6,1,1.6",
    shots: Annotated[int, typer.Option(min=1, help="Frames of each slice at each severity.")] = 1,
    factor_slices: Annotated[int, typer.Option(min=0, help="Slices shown with one factor at a time; 0: none.")] = 20,
    empty_scenes: Annotated[int, typer.Option(min=0, help="Frames of each scene without a slice; 0: none.")] = 25,
    feed: Annotated[Literal["file", "http"], typer.Option(help="Video file, or MJPEG over loopback.")] = "file",
    json: Annotated[Path | None, typer.Option(help="Write capture.json here too.")] = None,
    sheet: Annotated[bool | None, typer.Option(help="Draw the worst frames; default: of phantoms alone.")] = None,
    allow_leak: Annotated[bool, typer.Option(help="Go on where a patient is known; marks all outputs.")] = False,
    seed: int = 0,
) -> None:
    """Measure the capture path with a simulated webcam: outline, accuracy, refusals, time; after a stop it goes on."""
    from edge_agent.inlet import load_intake
    from sliceloop.capture_bench.cases import CasePlan, parse_severities
    from sliceloop.capture_bench.development import development_paths
    from sliceloop.capture_bench.run import CaptureRequest, bench_capture

    configure_logs("warning")
    plan = CasePlan(
        severities=parse_severities(severities),
        shots=shots,
        factor_slices=factor_slices,
        empty_scenes=empty_scenes,
        seed=seed,
    )
    request = CaptureRequest(
        data=data,
        phantoms=phantoms,
        out=out,
        model=model,
        plain_model=plain_model,
        split=split,
        slices=slices,
        plan=plan,
        feed=feed,
        json=json,
        sheet=sheet,
        allow_leak=allow_leak,
    )
    bench_capture(request, development_paths(intake=load_intake(None)), stop_on_signals())


@capture_bench_app.command("capture-page")
def bench_capture_page(
    data: Annotated[Path | None, typer.Argument(help="Folder of the labelled slices; or --phantoms.")] = None,
    out: Annotated[Path, typer.Option(help="The page; a .json beside it keeps what is true.")] = Path("page.html"),
    phantoms: Annotated[bool, typer.Option("--phantoms", help="Show phantom slices instead of a data set.")] = False,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    slices: Annotated[int, typer.Option(min=1, help="Slides, drawn evenly over the classes; at most 250.")] = 40,
    dwell_s: Annotated[float, typer.Option(min=1, help="How long a slide stands.")] = 4.0,
    seed: int = 0,
) -> None:
    """Write a page that steps full-screen through slices with tags, to film it with a real webcam."""
    from sliceloop.capture_bench.page import PageRequest, write_page

    write_page(PageRequest(data, phantoms, out, split, slices, seed, dwell_s))


@capture_bench_app.command("capture-score")
def bench_capture_score(
    recording: Annotated[Path, typer.Argument(help="A video of the page that `bench capture-page` wrote.")],
    page: Annotated[Path, typer.Option(help="The page's .json.")],
    out: Annotated[Path, typer.Option(help="Folder for capture.md, .json and plots.")] = Path("capture-score"),
    model: Annotated[Path | None, typer.Option(help="A bundle's folder; without one the outline is measured.")] = None,
    plain_model: Annotated[
        Path | None, typer.Option(help="A bundle trained without the simulator, for the paper's path.")
    ] = None,
    trigger: Annotated[
        Literal["still", "interval"], typer.Option(help="As the edge takes pictures, or every half second.")
    ] = "still",
    calibration: Annotated[Path | None, typer.Option(help="A file of `sliceloop calibrate`.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write capture.json here too.")] = None,
    simulated: Annotated[
        bool, typer.Option("--simulated", help="The recording was rendered, not filmed: mark all outputs.")
    ] = False,
    allow_leak: Annotated[bool, typer.Option(help="Go on where a patient is known; marks all outputs.")] = False,
) -> None:
    """Score a recording of the page: what a real webcam, screen and room leave of the slices."""
    from edge_agent.inlet import load_calibration, load_intake
    from edge_agent.locate import locate
    from sliceloop.capture_bench.development import development_paths
    from sliceloop.capture_bench.score import ScoreRequest, score_recording

    configure_logs("warning")
    known = load_calibration(calibration)
    request = ScoreRequest(
        recording=recording,
        page=page,
        out=out,
        model=model,
        plain_model=plain_model,
        trigger=trigger,
        json=json,
        simulated=simulated,
        allow_leak=allow_leak,
        calibrated=known is not None,
    )
    score_recording(request, development_paths(known, load_intake(None)), locate, stop_on_signals())

"""Numbers of sentences in the documentation, formatted as the sentences have them."""

from typing import Any

from benchmarks.tables import scale
from benchmarks.tables.stored import Stored, short, significant

STUDIES = "studies_cpu"


def _study(stored: Stored, name: str) -> dict[str, Any]:
    return stored.part(STUDIES, name).results


def _score(stored: Stored, study: str, arm: str, classifier: str) -> dict[str, Any]:
    return _study(stored, study)["arms"][arm]["classifiers"][classifier]["balanced_accuracy"]


def headline(stored: Stored) -> list[str]:
    """Returns mean, interval and sd of the demo's headline."""
    own = _score(stored, "demo", "bag", "bag")
    return [f"{value:.3f}" for value in (own["mean"], *own["ci95"], own["sd"])]


def lda(stored: Stored) -> list[str]:
    """Returns the accuracy of LDA on haxby with its interval, and the bag's."""
    own, bag = _score(stored, "haxby", "nested", "LDA"), _score(stored, "haxby", "bag", "bag")
    return [f"{value:.3f}" for value in (own["mean"], *own["ci95"], bag["mean"])]


def floors(stored: Stored) -> list[str]:
    """Returns the noise floors of the demo and of finger7t."""
    out = []
    for study in ("demo", "finger7t"):
        for classifier in ("bag", "logistic"):
            own = _study(stored, study)["floor"]["bag"][classifier]
            out += [short(value) for value in (own["mean"], own["sd"], *own["ci95"])]
    return out


def neighbour(stored: Stored) -> list[str]:
    """Returns the accuracy of one nearest neighbour on noise under the random split."""
    return [short(_study(stored, "demoB")["floor"]["random"]["1-NN"]["mean"], 2)]


def _crossed(stored: Stored) -> dict[str, Any]:
    return _study(stored, "emotion_maps")["crossed"]["priming"]["SVM-linear hard"]


def new_people(stored: Stored) -> list[str]:
    """Returns the accuracy on new people, and on new people after a new priming."""
    own = _crossed(stored)
    return [short(own["leaving_subjects_out"]["mean"]), short(own["mean"])]


def priming(stored: Stored) -> list[str]:
    """Returns the crossed analysis of the emotion maps."""
    null, own = _crossed(stored)["null"], _crossed(stored)
    level = _study(stored, "emotion_maps")["design"]["priming"]["decoded_by_data"]
    more = (short(null["mean"]), short(null["sd"]), short(own["p"], 2), short(level))
    return [*new_people(stored), *more]


def within(stored: Stored) -> list[str]:
    """Returns decoders of the test subject's own runs, and their gain in the demo."""
    names = ("logistic", "LDA-shrinkage")
    own, demo = (_study(stored, name)["within_subject"] for name in ("finger7t", "demo"))
    out = [short(study[name]["mean"]) for study in (own, demo) for name in names]
    for gain in (demo[name]["minus_cross_subject"] for name in names):
        out += [f"+{short(gain['difference'])}", *map(short, gain["ci95"])]
    return out


def _spheres(stored: Stored, study: str) -> dict[str, str]:
    found = _study(stored, study)["searchlight"]
    peak = found["test"]["clusters"][0]["peak"]
    return {
        "spheres": f"{found['spheres']:,}",
        "mm": f"{found['radius_mm']:g}",
        "significant": f"{found['test']['significant']:,}",
        "p": short(found["test"]["least_p"]),
        "largest": short(found["largest"]),
        **{axis: f"{value:.0f}" for axis, value in zip("xyz", peak, strict=True)},
    }


def emotions(stored: Stored) -> list[str]:
    """Returns the searchlight of the emotion maps."""
    own = _spheres(stored, "emotions_wholebrain")
    return [own[name] for name in ("spheres", "mm", "significant", "p", *"xyz", "largest")]


def haxby(stored: Stored) -> list[str]:
    """Returns the searchlight of haxby."""
    own = _spheres(stored, "haxby_searchlight")
    return [own[name] for name in ("spheres", "mm", "significant", "largest", *"xyz")]


def demo_spheres(stored: Stored) -> list[str]:
    """Returns the searchlight of the demo's cohort."""
    own = _spheres(stored, "wholebrain")
    return [own[name] for name in ("largest", *"xyz", "p", "significant", "spheres")]


def searchlight(stored: Stored) -> list[str]:
    """Returns the speed of LDA spheres beside nilearn, and the largest difference."""
    found = stored.part("wholebrain_cpu", "searchlight").results
    lda = next(row for row in found["rows"] if row["tool"] == "emojax, LDA")
    return [f"{lda['ratio']:.0f}", f"{found['largest_difference']:.0e}".replace("e-0", "e-")]


def evidence(stored: Stored) -> list[str]:
    """Returns the correlation within blocks, and the errors of sequential tests."""
    found = stored.part("evidence_cpu", "demo030").results
    rho, tests = found["pair_correlation"], found["tests"]
    wrong = [short(tests["rho=.5"][error]["wrong"], 2) for error in ("0.2", "0.1", "0.05", "0.01")]
    eager = short(tests["rho=0,least=1"]["0.05"]["wrong"], 2)
    return [short(rho, 2), f"{10 / (1 + 9 * 0.5):.1f}", *wrong, eager]


def permutation(stored: Stored) -> list[str]:
    """Returns the check of the permutation test on null studies."""
    found = stored.part("permutation_cpu", "99 permutations").results["summary"]
    return [f"{found['studies']}", short(found["ks_p"], 2), f"{found['covers']}"]


def stages(stored: Stored) -> list[str]:
    """Returns p50 and p99 of guards, correction and motion for one volume."""
    found = stored.part("latency_cpu", "latency").results
    own = [row for row in found if (row["network"], row["tool"]) == ("cnn1d", "emojax")]
    rows = {row["stage"]: row for row in own if row.get("batch") == 1}
    return [
        significant(rows[stage][p], 2)
        for stage in ("checks", "level", "motion")
        for p in ("p50", "p99")
    ]


def _motion(stored: Stored, tool: str, *names: str) -> list[str]:
    found = stored.part("motion_cpu", "motion").results["rows"]
    own = next(row for row in found if row["tool"] == tool)
    times = [significant(own[p], 2) for p in ("p50", "p99")]
    return [*times, *(short(own[name]) for name in names)]


def estimate(stored: Stored) -> list[str]:
    """Returns times and errors of the motion estimate."""
    names = ("mm_median", "degrees_median", "mm_max", "degrees_max")
    return _motion(stored, "emojax estimate", *names)


def rtspm(stored: Stored) -> list[str]:
    """Returns times and errors of python-rtspm."""
    return _motion(stored, "python-rtspm spm_realign_rt", "mm_median", "degrees_median")


def step_of_b(stored: Stored) -> list[str]:
    """Returns core seconds and memory of a step of Experiment B."""
    step = stored.part("paper_settings_cpu", "experiment B").results["step"]
    return [f"{step['core_seconds']:.0f}", f"{step['step_gigabytes']}"]


def days_of_b(stored: Stored) -> list[str]:
    """Returns the extrapolated days of a training of Experiment B."""
    step = stored.part("paper_settings_cpu", "experiment B").results["step"]
    return [f"{step['core_days_of_the_training_extrapolated']}"]


def momenta_of_b(stored: Stored) -> list[str]:
    """Returns the accuracy of Experiment B with both momenta."""
    rows = stored.part("paper_settings_cpu", "experiment B").results["rows"]
    test = {row["momentum"]: short(row["test"], 2) for row in rows}
    return [test[0.9], test[0.99]]


def logistic_of_a(stored: Stored) -> list[str]:
    """Returns the accuracy of logistic regression on the rows of the published settings."""
    found = stored.part("paper_settings_cpu", "experiment A").results["logistic"]
    return [f"{found[name]:.2f}" for name in ("monitored", "test")]


def int8(stored: Stored) -> list[str]:
    """Returns the rounding error of int8, voxels, and accuracy with and without it."""
    found = stored.part("scale_cpu", "rounding").results
    accuracy = [short(found[name]["accuracy"], 4) for name in ("int8", "float32")]
    return [short(found["error_sd"], 4), f"{found['voxels']:,}", *accuracy]


def mask(stored: Stored) -> list[str]:
    """Returns the voxels in the demo's mask, and in the volume."""
    found = stored.part("scale_cpu", "rounding").results
    return [f"{found['voxels']:,}", f"{found['of']:,}"]


def reading(stored: Stored) -> list[str]:
    """Returns the speed of decoding scans, and of labels."""
    found = stored.part("io_cpu", "decode").results
    rate = found["bytes_decoded"] / found["store_s"]
    seconds = [n * scale.VOLUMES * 2 * scale.VOXELS / rate for n in (1_000, 10_000)]
    size = f"{found['bytes_decoded'] / 1e6:.0f}"
    out = [size, f"{found['store_s']:.2f}", f"{rate / 1e6:.0f}"]
    labels = stored.part("io_cpu", "labels").results["seconds"]
    return [*out, f"{seconds[0] / 60:.0f}", significant(seconds[1] / 3600, 2), f"{labels:.2f}"]


def batches(stored: Stored) -> list[str]:
    """Returns volumes a second of batches in int8 and int16."""
    found = stored.part("scale_cpu", "read").results
    kinds = ("int8, mask", "int16, whole volume")
    return [significant(found[kind]["volumes_per_s"], 2) for kind in kinds]


def gflop(stored: Stored) -> list[str]:
    """Returns the GFLOP of a volume, forward and in training."""
    own = stored.part("roofline_cpu", "float32").results["rows"][0]
    return [f"{own['gflop']:.2f}", f"{3 * own['gflop']:.0f}"]


def subjects(stored: Stored) -> list[str]:
    """Returns seconds of hyperalignment by number of subjects."""
    return [significant(r["seconds"], 2) for r in stored.part("core_cpu", "subjects").results]


def one_thread(stored: Stored) -> list[str]:
    """Returns seconds of hyperalignment on one core, by tool."""
    found = {
        (row["tool"], row["dtype"]): row["seconds"]
        for row in stored.part("core_cpu", "hyperalignment").results
        if (row["threads"], row["shape"]) == (1, [11, 400, 300])
    }
    tools = [("emojax", "float32"), ("emojax", "float64")]
    tools += [("fmralign", "float64"), ("hyperalignment", "float64")]
    return [short(found[tool], 2) for tool in tools]


def features(stored: Stored) -> list[str]:
    """Returns the rates of hyperalignment and F-scores."""
    fit, memory, values = scale.rates(stored)
    most = stored.part("core_cpu", "subjects").results[-1]
    extra = f"{most['peak_mib'] - most['before_mib']}"
    seconds = significant(4_000 * 50_000 / values, 2)
    rate = f"{values:.1e}".replace("e+09", "e9")
    per = [f"{1e3 * fit:.0f}", extra, f"{memory / 2**20:.1f}"]
    return [*subjects(stored), *per, seconds, rate]


def folds(stored: Stored) -> list[str]:
    """Returns ms a fold and step, one by one and side by side."""
    return [f"{r['ms_per_fold_step']:.0f}" for r in stored.part("folds_cpu", "folds").results]


def multiplications(stored: Stored) -> list[str]:
    """Returns multiplications per volume of MONAI and emojax."""
    found = {r["tool"]: r for r in stored.part("resnet3d_cpu", "resnet3d").results}
    return [f"{found[tool]['gmac']:.2f}" for tool in ("monai", "emojax")]


def wide(stored: Stored) -> list[str]:
    """Returns time and memory of a whole brain's hyperalignment."""
    own = stored.part("core_cpu", "wide").results[0]
    return [f"{own['seconds']:.0f}", f"{own['peak_mib'] / 1024:.1f}"]


def compiling(stored: Stored) -> list[str]:
    """Returns the range of first calls of F-scores."""
    rows = stored.part("core_cpu", "anova").results
    first = [row["first_seconds"] for row in rows if row["tool"].startswith("emojax")]
    return [significant(least, 2) for least in (min(first), max(first))]

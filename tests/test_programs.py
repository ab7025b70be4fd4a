"""Programs from configs: equal settings share compiled code, and only a few programs are kept."""

import pytest
import tiny_training as tiny
from tiny_training import same, trained

from configs import expA
from emojax.experiments import programs
from emojax.training import epoch, loop
from emojax.training.trial import CURVES


@pytest.fixture(scope="module", autouse=True)
def quick():
    with tiny.quick_compile():
        yield


def test_a_step_compiles_once_for_all_epochs_and_factors():
    """The state keeps its dtypes from the first step on, and a penalty's weight is traced."""
    program, before = tiny.program(lr=0.011), compiled_functions()
    weak = trained(program, factor=0.0)
    counts = compiled_functions()
    assert {name: counts[name] - before[name] for name in counts} == dict.fromkeys(counts, 1) | {
        "run_scanned": 0
    }
    strong = trained(program, factor=1.0)
    assert compiled_functions() == counts
    assert strong["loss"][0] > weak["loss"][0] + 1


def small_config():
    config = expA.get_config("demo")
    config.model.update(filters=(4, 3), window=3, dense=(8,), dropout=(0.1, 0.2))
    config.train.update(batch_size=8, lr=0.01)
    return config


@pytest.mark.slow
def test_equal_settings_are_one_program_and_compile_once():
    """The network of Experiment A has dropout and a penalty, side by side as in a loop."""
    program = programs.make_program(small_config(), 2)
    again = programs.make_program(small_config(), 2)
    assert again is program
    assert programs.make_program(small_config(), 3) is not program
    other = small_config()
    other.train.lr = 0.02
    assert programs.make_program(other, 2) is not program
    found = {}
    for strategy in ("loop", "scan"):
        for made, seeds in ((program, (0, 1)), (again, (2, 3))):
            counts = compiled_functions()
            tasks = [tiny.task(made, str(seed), seed=seed, of="vectors") for seed in seeds]
            options = {"epochs": 3, "every": 3, "factor": 1e-4, "strategy": strategy}
            for task, got in loop.fit(made, tasks, **options):
                found[strategy, task.name] = tiny.outcome(made, task, got)
        assert compiled_functions() == counts
    for name in "0123":
        got, want = found["scan", name], found["loop", name]
        same(got, want, rtol=2e-3, atol=1e-4, names=CURVES)
        same(got, want, rtol=2e-2, atol=1e-3, names=[n for n in want if n.startswith("weights")])


def test_choices_of_the_training_reach_the_program():
    assert programs.make_program(small_config(), 2)[-4:] == ("accuracy", "rows", 0, False)
    config = small_config()
    config.train.update(best_by="nll", draws="classes", warmup=1, epoch_zero=True)
    assert programs.make_program(config, 2)[-4:] == ("nll", "classes", 1, True)


@pytest.mark.parametrize(("rows", "epochs"), [(1600, 6), (1601, 6), (450, 19), (190, 50), (1, 150)])
def test_few_rows_get_more_epochs(rows, epochs):
    train = expA.get_config("modern").train
    assert programs.epochs_of(train, rows) == epochs
    train.least_steps = 0
    assert programs.epochs_of(train, rows) == train.epochs == 6


def compiled_functions():
    jitted = ("step", "_measure", "_close", "_order", "_predict", "run_scanned")
    return {name: getattr(epoch, name)._cache_size() for name in jitted}


def test_programs_are_kept_in_bounds():
    limit = programs._program.cache_info().maxsize
    for seed in range(limit + 3):
        config = small_config()
        config.train.lr = 0.01 + 1e-4 * seed
        programs.make_program(config, 2)
    assert programs._program.cache_info().currsize == limit

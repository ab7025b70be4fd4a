"""Sentences of the documentation whose numbers are stored."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from benchmarks.tables import facts
from benchmarks.tables.stored import Stored

NUMBER = r"([-+]?(?:\d(?:[\d,]*\d)?(?:\.\d+)?|\.\d+)(?:e[-+]?\d+)?)"


class Claim(NamedTuple):
    """A sentence with {} for each number, and the numbers as they are stored."""

    text: str
    numbers: Callable[[Stored], Sequence[str]]

    @property
    def pattern(self) -> re.Pattern[str]:
        """The sentence, with any numbers and any line breaks."""
        words = (re.split(r"\s+", part) for part in self.text.split("{}"))
        return re.compile(NUMBER.join(r"\s+".join(map(re.escape, own)) for own in words))


def rendered(text: str, stored: Stored) -> tuple[str, list[str]]:
    """Returns a text with the numbers of its claims as stored, and the claims that have changed."""
    changed = []
    for claim in CLAIMS:
        values = None
        for found in reversed(list(claim.pattern.finditer(text))):
            values = values or claim.numbers(stored)
            for group in range(len(found.groups()), 0, -1):
                start, end = found.span(group)
                if text[start:end] != values[group - 1]:
                    text = text[:start] + values[group - 1] + text[end:]
                    changed.append(f'"{" ".join(claim.text.split()[:6])} ..."')
    return text, changed


CLAIMS = (
    Claim("bag: balanced accuracy {} (95 % interval {} to {}, sd {} over 6 folds", facts.headline),
    Claim("| {} | the mean of the folds' scores", lambda stored: facts.headline(stored)[:1]),
    Claim("LDA of the same voxels has {} ({} - {}), the bag {}", facts.lda),
    Claim(
        "the bag {} ({}), {} - {}, logistic regression {} ({}), {} - {}; `finger7t.py` (chance "
        ".200, rows exchanged) the bag {} ({}), {} - {}, logistic regression {} ({}), {} - {}",
        facts.floors,
    ),
    Claim("1-NN scores {} under `random`", facts.neighbour),
    Claim("one nearest neighbour still scores {} under `random`", facts.neighbour),
    Claim("reaches {} on new people, and {} on new people after a new priming", facts.new_people),
    Claim(
        "{} leaving subjects out, {} with a new priming (null {}, sd {}, p {}); the priming "
        "itself is decoded at {}.",
        facts.priming,
    ),
    Claim(
        "On `finger7t`: logistic {}, LDA {}; on `expA.py:demo` {} and {}, {} ({} to {}) and "
        "{} ({} to {})",
        facts.within,
    ),
    Claim(
        "of {} spheres of {} mm, {} have p <= .05 (least p {}), almost all in one cluster about "
        "{} {} {}, where accuracy is {}",
        facts.emotions,
    ),
    Claim(
        "of {} spheres of {} mm, {} have p <= .05 in one cluster, with {} at {} {} {}", facts.haxby
    ),
    Claim("best sphere has {} at {} {} {} (p {}); {} of {} spheres", facts.demo_spheres),
    Claim(
        "LDA of one labelling is {} x as fast as nilearn's RidgeClassifier. Accuracies of both "
        "are equal to {}.",
        facts.searchlight,
    ),
    Claim(
        "correlate by {} there, so evidence counts them as {} (rho = .5). With that, a test with "
        "a stated error of .20 or .10 is wrong in {} and {} of its decisions; at .05 it is wrong "
        "in {}, at .01 in {}. With rho = 0 and without waiting for the third volume it would be "
        "{} at .05",
        facts.evidence,
    ),
    Claim(
        "{} studies without a response, 99 permutations each. p is uniform as far as they can tell "
        "(Kolmogorov and Smirnov, p = {}; .05 or less in none of 40), and Student's t interval "
        "over folds covers chance in {}",
        facts.permutation,
    ),
    Claim(
        "guards {} / {}; guards, gain, offset and decoder {} / {}; with motion {} / {}.",
        facts.stages,
    ),
    Claim(
        "The estimate of a motion alone takes {} / {} and is off by {} mm and {} degrees in the "
        "median (largest {} mm, {} degrees)",
        facts.estimate,
    ),
    Claim("takes {} / {} in the same run, and is off by {} mm and {} degrees", facts.rtspm),
    Claim("paper's size takes {} core seconds and {} GB", facts.step_of_b),
    Claim("epochs about {} days of one core", facts.days_of_b),
    Claim("reach {} with a momentum of .9 and {} with .99", facts.momenta_of_b),
    Claim("logistic regression on the same rows has {} / {}.", facts.logistic_of_a),
    Claim(
        "Measured in the demo's cohort: {}. It adds 8e-5 of a voxel's variance. Logistic "
        "regression of all {} voxels, one subject left out, has an accuracy of {} on int8 and {} "
        "on float32",
        facts.int8,
    ),
    Claim("A brain mask keeps about a fifth: {} of {} voxels", facts.mask),
    Claim(
        "Two cores decode {} MB of .nii.gz in {} s (`io_cpu.json`), {} MB/s: {} minutes for 1,000 "
        "subjects, {} hours for 10,000, once. Labels of 1,000 runs take {} s",
        facts.reading,
    ),
    Claim("{} volumes a second of int8 in the mask, {} of int16 whole", facts.batches),
    Claim(
        "takes {} GFLOP a volume forward (`roofline_cpu.json`), and three times as much in "
        "training: {} GFLOP",
        facts.gflop,
    ),
    Claim(
        "Hyperalignment of 400 x 300 took {}, {} and {} s for 11, 44 and 176 subjects on two cores "
        "(`core_cpu.json`): {} ms a subject. Its memory beyond the start was {} MiB for 176: {} "
        "MiB a subject, nine copies of the rows. F-scores of a NumPy array of 4,000 x 50,000 took "
        "{} s: {} values a second",
        facts.features,
    ),
    Claim(
        "11, 44 and 176 subjects of 400 x 300 in float32 take {} s, {} s and {} s", facts.subjects
    ),
    Claim(
        "one fold, step after step, takes {} ms a step. Two folds side by side in one program, "
        "with epochs on the device, take {} ms a fold and step",
        facts.folds,
    ),
    Claim(
        "MONAI multiplies {} G times per volume, emojax and torch {} G times", facts.multiplications
    ),
    Claim("A whole brain, 11 x 400 x 40,000, took {} s (first call, {} GiB", facts.wide),
    Claim(
        "on one thread, with three passes in both: float32 {} s, float64 {}, fmralign (float64) "
        "{}, hyperalignment 0.1.1 {}",
        facts.one_thread,
    ),
    Claim("First calls compile for {} to {} s", facts.compiling),
)

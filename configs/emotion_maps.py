r"""Real emotion data: nine beta maps from each of 30 people, for anger, disgust and fear.

    python launch.py --config=configs/emotion_maps.py --workdir=runs/emotion_maps \
        --config.data.root=../shared/data/emotion-maps

Pictures that elicit an emotion were shown after a congruent, incongruent or neutral word: 3 x 3
maps per person. The classical classifiers see all 28,029 voxels of the mask; the network sees the
300 that differ most between the emotions of the training subjects. Maps are not points in time, so
they cannot be aligned by time, and nine of them are too few to align at all.

Each person's maps are centred by their own mean, including the scored maps, so the report calls the
protocol transductive. Without centring (`uncentred`), differences between people hide the emotions.
Leaving a person out does not leave a priming word out: `Cohort.factors` holds it, and a classifier
may recognise a cell of emotion and priming by its stimuli, not the emotion. See `splits.crossed`.
"""

from emojax.configs import common, finger7t, wholebrain


def get_config(variant: str = ""):
    """Returns the study, or a variant of it."""
    config = common.get_config()
    config.data.source = "maps"
    config.data.root = "../shared/data/emotion-maps"
    config.data.table = "maps.tsv"
    config.data.label_column = "emotion"
    config.data.mask = "mask.nii.gz"
    config.data.centre = True
    config.voxels.classical = "all"
    config.align.regimes = "none"
    config.align.match = "class"
    config.protocols = "nested,last"  # the published procedure aligns subjects
    config.baselines = "SVM-linear,SVM-linear hard,SVM-RBF,LDA-shrinkage,1-NN,RF,logistic"
    config.balance = 3  # all maps of each emotion and person
    return common.choose(config, variant, VARIANTS)


def uncentred(config):
    """Does not centre the maps, which makes the protocol strict."""
    finger7t.short(config)
    config.data.centre = False


def whole_brain(config):
    """Maps accuracy and pattern in the brain, and compares alignment methods; no network.

    People are aligned piecewise, globally or not at all, by the maps of their other priming words
    (calibrated).
    """
    wholebrain.of_the_whole_brain(config)
    config.alignments = "none,group,independent_runs,piecewise"
    config.data.run_column = "priming"
    config.voxels.classical = "keep"
    config.align.parcels = "ward:10"
    config.searchlight.radius_mm = 8.0  # 33 voxels of 4 mm
    config.members = 2


def null(config):
    """Runs the same design on noise, to compare results with."""
    finger7t.short(config)
    common.null(config)


VARIANTS = {"": finger7t.short, "uncentred": uncentred, "wholebrain": whole_brain, "null": null}

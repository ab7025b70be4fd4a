r"""A real BIDS scan of a whole brain (one run of 64 volumes, TR 3 s): pictures or rest, ResNet-18.

    python launch.py --config=configs/audiovisual.py \
        --config.data.root=../shared/data/bids-fsl-audiovisual --workdir=runs/audiovisual

With one run, blocks are kept whole instead of runs. About fifty volumes cannot train a network, so
accuracy at chance is the expected result. Hardware, time and accuracy: the README's table of real
data.
"""

from emojax.configs import common, haxby_b


def get_config(variant: str = ""):
    """Returns the study, or a variant of it."""
    config = common.get_config("B")
    config.data.source = "bids"
    config.data.root = "../shared/data/bids-fsl-audiovisual"
    config.data.hrf_delay_s = 6.0
    config.data.label_map = "rest=;visual=visual"
    config.data.online = "gain+cumulative"
    config.splits = "by_block,random"
    config.fractions = (0.4, 0.3, 0.3)
    haxby_b.short(config)
    config.train.batch_size = 8
    return common.choose(config, variant, VARIANTS)


VARIANTS = {"null": common.null}

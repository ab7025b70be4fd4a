"""Command lines that cannot be."""

from fuzz_cases import Case

BAD_CONFIGS = (
    "1/0",
    "assert False",
    "def get_config():\n return 'x'",
    "x = 1",
    "def (",
    "from ml_collections import ConfigDict\ndef get_config():\n return ConfigDict({'lr': 1})",
)


def cases():
    """Yields the cases of the command line."""
    config, workdir, data = "--config=configs/expA.py:demo", "--workdir={work}", "--mode=data"
    base = (config, workdir, data)
    for name, *argv in (
        ("nothing",),
        ("no workdir", config),
        ("empty workdir", config, "--workdir="),
        ("no config", workdir, data),
        ("config nowhere", "--config=configs/x.py", workdir),
        ("config a folder", "--config=configs", workdir),
        ("config empty", "--config=", workdir),
        ("config of text", "--config=README.md", workdir),
        ("unknown variant", "--config=configs/expA.py:x", workdir),
        ("unknown flag", *base, "--x=1"),
        ("unknown mode", config, workdir, "--mode=x"),
        ("unknown key", *base, "--config.x=1"),
        ("unknown key below", *base, "--config.train.x=1"),
        ("key of a leaf", *base, "--config.seed.x=1"),
        ("a whole branch", *base, "--config.train=1"),
        ("argument left over", *base, "extra"),
        ("key without value", *base, "--config.seed"),
        ("key without dashes", *base, "config.seed=7"),
        ("workdir a file", config, "--workdir=/etc/hostname", data),
        ("workdir below a file", config, "--workdir=/etc/hostname/x", data),
        ("workdir in /proc", config, "--workdir=/proc/x/y", data),
        ("workdir of 300 letters", config, "--workdir=./" + "x" * 300, data),
        ("workdir with nul", config, "--workdir=a\0b", data),
        ("flagfile nowhere", *base, "--flagfile=/nowhere"),
        ("experiment C", *base, "--config.experiment=C"),
        ("experiment B of config A", *base, "--config.experiment=B"),
        ("config that fails", "--config={folder}/bad1.py", workdir),
        ("config with an assertion", "--config={folder}/bad2.py", workdir),
        ("config that returns text", "--config={folder}/bad3.py", workdir),
        ("config without get_config", "--config={folder}/bad4.py", workdir),
        ("config with a syntax error", "--config={folder}/bad5.py", workdir),
        ("config of another project", "--config={folder}/bad6.py", workdir),
        ("export of nothing", config, workdir, "--mode=export"),
        ("decode of nothing", "--mode=decode"),
        ("decode nowhere", "--mode=decode", "--bundle=/nowhere", "--input=x", workdir),
        ("report of nothing", "--mode=report", workdir),
    ):
        yield Case("flags", name, _write_configs, _line(argv))


def _write_configs(folder):
    for i, text in enumerate(BAD_CONFIGS, 1):
        (folder / f"bad{i}.py").write_text(text)


def _line(words):
    return lambda folder, work: [word.format(folder=folder, work=work) for word in words]

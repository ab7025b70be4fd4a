"""Export: a finished run becomes a decoder on disk.

    export(config, workdir, subject, run)                # a fold's, checked against the report
    export(config, workdir, classifier="LDA")            # another row of the result table
    export(config, workdir, refit=True)                  # fitted on everybody, for a new person

Networks are kept by the run; all else is fitted again from the data, as the run has fitted it.
"""

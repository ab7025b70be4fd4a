"""Export of a finished run as a decoder on disk.

    export(config, workdir, subject, run)                # of one fold, checked against the report
    export(config, workdir, classifier="LDA")            # another row of the result table
    export(config, workdir, refit=True)                  # fitted on all subjects, for a new person

Networks are loaded from the run; everything else is fitted again from the data as in the run.
"""

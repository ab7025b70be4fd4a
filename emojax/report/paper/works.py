"""BibTeX records of the works that a methods paragraph may cite."""

from collections.abc import Mapping

JMLR = "Journal of Machine Learning Research"
NEUROIMAGE = "NeuroImage"
# Key -> (BibTeX entry type, fields). Braces preserve capitals; software versions are added later.
WORKS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "tchibozo2022": (
        "misc",
        {
            "author": "Tchibozo, Maxime and Kim, Donggeun and Wang, Zijing and He, Xiaofu",
            "title": "Emotional Brain State Classification on {fMRI} Data Using Deep Residual and "
            "Convolutional Networks",
            "year": "2022",
            "eprint": "2210.17015",
            "archiveprefix": "arXiv",
        },
    ),
    "haxby2011": (
        "article",
        {
            "author": "Haxby, James V. and Guntupalli, J. Swaroop and Connolly, Andrew C. and "
            "Halchenko, Yaroslav O. and Conroy, Bryan R. and Gobbini, M. Ida and Hanke, Michael "
            "and Ramadge, Peter J.",
            "title": "A common, high-dimensional model of the representational space in human "
            "ventral temporal cortex",
            "journal": "Neuron",
            "year": "2011",
            "volume": "72",
            "number": "2",
            "pages": "404--416",
            "doi": "10.1016/j.neuron.2011.08.026",
        },
    ),
    "schonemann1966": (
        "article",
        {
            "author": 'Sch{\\"o}nemann, Peter H.',
            "title": "A generalized solution of the orthogonal {Procrustes} problem",
            "journal": "Psychometrika",
            "year": "1966",
            "volume": "31",
            "number": "1",
            "pages": "1--10",
            "doi": "10.1007/BF02289451",
        },
    ),
    "xu2012": (
        "inproceedings",
        {
            "author": "Xu, Hao and Lorbert, Alexander and Ramadge, Peter J. and Guntupalli, J. "
            "Swaroop and Haxby, James V.",
            "title": "Regularized hyperalignment of multi-set {fMRI} data",
            "booktitle": "{IEEE} Statistical Signal Processing Workshop",
            "year": "2012",
            "pages": "229--232",
            "doi": "10.1109/SSP.2012.6319668",
        },
    ),
    "he2016": (
        "inproceedings",
        {
            "author": "He, Kaiming and Zhang, Xiangyu and Ren, Shaoqing and Sun, Jian",
            "title": "Identity mappings in deep residual networks",
            "booktitle": "European Conference on Computer Vision",
            "year": "2016",
            "pages": "630--645",
            "doi": "10.1007/978-3-319-46493-0_38",
        },
    ),
    "kingma2015": (
        "inproceedings",
        {
            "author": "Kingma, Diederik P. and Ba, Jimmy",
            "title": "{Adam}: a method for stochastic optimization",
            "booktitle": "International Conference on Learning Representations",
            "year": "2015",
            "eprint": "1412.6980",
            "archiveprefix": "arXiv",
        },
    ),
    "ioffe2015": (
        "inproceedings",
        {
            "author": "Ioffe, Sergey and Szegedy, Christian",
            "title": "Batch normalization: accelerating deep network training by reducing internal "
            "covariate shift",
            "booktitle": "International Conference on Machine Learning",
            "year": "2015",
            "pages": "448--456",
        },
    ),
    "brodersen2010": (
        "inproceedings",
        {
            "author": "Brodersen, Kay H. and Ong, Cheng Soon and Stephan, Klaas E. and Buhmann, "
            "Joachim M.",
            "title": "The balanced accuracy and its posterior distribution",
            "booktitle": "International Conference on Pattern Recognition",
            "year": "2010",
            "pages": "3121--3124",
            "doi": "10.1109/ICPR.2010.764",
        },
    ),
    "nadeau2003": (
        "article",
        {
            "author": "Nadeau, Claude and Bengio, Yoshua",
            "title": "Inference for the generalization error",
            "journal": "Machine Learning",
            "year": "2003",
            "volume": "52",
            "number": "3",
            "pages": "239--281",
            "doi": "10.1023/A:1024068626366",
        },
    ),
    "mackinnon2023": (
        "article",
        {
            "author": "MacKinnon, James G. and Nielsen, Morten {\\O}rregaard and Webb, Matthew D.",
            "title": "Cluster-robust inference: a guide to empirical practice",
            "journal": "Journal of Econometrics",
            "year": "2023",
            "volume": "232",
            "number": "2",
            "pages": "272--299",
            "doi": "10.1016/j.jeconom.2022.04.001",
        },
    ),
    "holm1979": (
        "article",
        {
            "author": "Holm, Sture",
            "title": "A simple sequentially rejective multiple test procedure",
            "journal": "Scandinavian Journal of Statistics",
            "year": "1979",
            "volume": "6",
            "number": "2",
            "pages": "65--70",
        },
    ),
    "ojala2010": (
        "article",
        {
            "author": "Ojala, Markus and Garriga, Gemma C.",
            "title": "Permutation tests for studying classifier performance",
            "journal": JMLR,
            "year": "2010",
            "volume": "11",
            "pages": "1833--1863",
        },
    ),
    "prichard1994": (
        "article",
        {
            "author": "Prichard, Dean and Theiler, James",
            "title": "Generating surrogate data for time series with several simultaneously "
            "measured variables",
            "journal": "Physical Review Letters",
            "year": "1994",
            "volume": "73",
            "number": "7",
            "pages": "951--954",
            "doi": "10.1103/PhysRevLett.73.951",
        },
    ),
    "guo2017": (
        "inproceedings",
        {
            "author": "Guo, Chuan and Pleiss, Geoff and Sun, Yu and Weinberger, Kilian Q.",
            "title": "On calibration of modern neural networks",
            "booktitle": "International Conference on Machine Learning",
            "year": "2017",
            "pages": "1321--1330",
        },
    ),
    "platt1999": (
        "incollection",
        {
            "author": "Platt, John C.",
            "title": "Probabilistic outputs for support vector machines and comparisons to "
            "regularized likelihood methods",
            "booktitle": "Advances in Large Margin Classifiers",
            "publisher": "MIT Press",
            "year": "1999",
            "pages": "61--74",
        },
    ),
    "ledoit2004": (
        "article",
        {
            "author": "Ledoit, Olivier and Wolf, Michael",
            "title": "A well-conditioned estimator for large-dimensional covariance matrices",
            "journal": "Journal of Multivariate Analysis",
            "year": "2004",
            "volume": "88",
            "number": "2",
            "pages": "365--411",
            "doi": "10.1016/S0047-259X(03)00096-4",
        },
    ),
    "gorgolewski2016": (
        "article",
        {
            "author": "Gorgolewski, Krzysztof J. and others",
            "title": "The brain imaging data structure, a format for organizing and describing "
            "outputs of neuroimaging experiments",
            "journal": "Scientific Data",
            "year": "2016",
            "volume": "3",
            "pages": "160044",
            "doi": "10.1038/sdata.2016.44",
        },
    ),
    "esteban2019": (
        "article",
        {
            "author": "Esteban, Oscar and others",
            "title": "{fMRIPrep}: a robust preprocessing pipeline for functional {MRI}",
            "journal": "Nature Methods",
            "year": "2019",
            "volume": "16",
            "number": "1",
            "pages": "111--116",
            "doi": "10.1038/s41592-018-0235-4",
        },
    ),
    "abraham2014": (
        "article",
        {
            "author": "Abraham, Alexandre and Pedregosa, Fabian and Eickenberg, Michael and "
            "Gervais, Philippe and Mueller, Andreas and Kossaifi, Jean and Gramfort, Alexandre and "
            'Thirion, Bertrand and Varoquaux, Ga{\\"e}l',
            "title": "Machine learning for neuroimaging with scikit-learn",
            "journal": "Frontiers in Neuroinformatics",
            "year": "2014",
            "volume": "8",
            "pages": "14",
            "doi": "10.3389/fninf.2014.00014",
        },
    ),
    "friston1996": (
        "article",
        {
            "author": "Friston, Karl J. and Williams, Steven and Howard, Robert and Frackowiak, "
            "Richard S. J. and Turner, Robert",
            "title": "Movement-related effects in {fMRI} time-series",
            "journal": "Magnetic Resonance in Medicine",
            "year": "1996",
            "volume": "35",
            "number": "3",
            "pages": "346--355",
            "doi": "10.1002/mrm.1910350312",
        },
    ),
    "behzadi2007": (
        "article",
        {
            "author": "Behzadi, Yashar and Restom, Khaled and Liau, Joy and Liu, Thomas T.",
            "title": "A component based noise correction method ({CompCor}) for {BOLD} and "
            "perfusion based {fMRI}",
            "journal": NEUROIMAGE,
            "year": "2007",
            "volume": "37",
            "number": "1",
            "pages": "90--101",
            "doi": "10.1016/j.neuroimage.2007.04.042",
        },
    ),
    "power2012": (
        "article",
        {
            "author": "Power, Jonathan D. and Barnes, Kelly A. and Snyder, Abraham Z. and "
            "Schlaggar, Bradley L. and Petersen, Steven E.",
            "title": "Spurious but systematic correlations in functional connectivity {MRI} "
            "networks arise from subject motion",
            "journal": NEUROIMAGE,
            "year": "2012",
            "volume": "59",
            "number": "3",
            "pages": "2142--2154",
            "doi": "10.1016/j.neuroimage.2011.10.018",
        },
    ),
    "lindquist2019": (
        "article",
        {
            "author": "Lindquist, Martin A. and Geuter, Stephan and Wager, Tor D. and Caffo, Brian "
            "S.",
            "title": "Modular preprocessing pipelines can reintroduce artifacts into {fMRI} data",
            "journal": "Human Brain Mapping",
            "year": "2019",
            "volume": "40",
            "number": "8",
            "pages": "2358--2376",
            "doi": "10.1002/hbm.24528",
        },
    ),
    "jax": (
        "software",
        {
            "author": "Bradbury, James and Frostig, Roy and Hawkins, Peter and Johnson, Matthew "
            "James and Leary, Chris and Maclaurin, Dougal and others",
            "title": "{JAX}: composable transformations of {Python+NumPy} programs",
            "year": "2018",
        },
    ),
    "flax": (
        "software",
        {
            "author": "Heek, Jonathan and Levskaya, Anselm and Oliver, Avital and Ritter, Marvin "
            "and Rondepierre, Bertrand and Steiner, Andreas and van Zee, Marc",
            "title": "{Flax}: a neural network library and ecosystem for {JAX}",
            "year": "2020",
        },
    ),
    "numpy": (
        "article",
        {
            "author": "Harris, Charles R. and others",
            "title": "Array programming with {NumPy}",
            "journal": "Nature",
            "year": "2020",
            "volume": "585",
            "pages": "357--362",
            "doi": "10.1038/s41586-020-2649-2",
        },
    ),
    "scikit-learn": (
        "article",
        {
            "author": "Pedregosa, Fabian and others",
            "title": "Scikit-learn: machine learning in {Python}",
            "journal": JMLR,
            "year": "2011",
            "volume": "12",
            "pages": "2825--2830",
        },
    ),
    "xgboost": (
        "inproceedings",
        {
            "author": "Chen, Tianqi and Guestrin, Carlos",
            "title": "{XGBoost}: a scalable tree boosting system",
            "booktitle": "{ACM} {SIGKDD} International Conference on Knowledge Discovery and Data "
            "Mining",
            "year": "2016",
            "pages": "785--794",
            "doi": "10.1145/2939672.2939785",
        },
    ),
}

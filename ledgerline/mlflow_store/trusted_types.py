"""Lists the types that a model in skops format may consist of, besides those that skops trusts.

A file with another type is refused. The source code of each type was reviewed: an object that is created from
a file calls only those functions and classes in the file that are trusted themselves. skops also checks the
function inside a partial, a scorer or a kernel.

The types are checked, and the numbers in them are not: a tree with manipulated nodes may crash the process.
The hash of a registered version protects against that.
"""

_TREES = {
    "sklearn.tree._tree.Tree",
    "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    # Boosted trees use these to check numeric columns if there are also categories.
    "functools.partial",
    "sklearn.utils.validation.check_array",
}

_LOSSES = {
    f"sklearn._loss.{name}"
    for name in (
        "link.HalfLogitLink",
        "link.IdentityLink",
        "link.Interval",
        "link.LogLink",
        "link.LogitLink",
        "link.MultinomialLogit",
        "loss.AbsoluteError",
        "loss.ExponentialLoss",
        "loss.HalfBinomialLoss",
        "loss.HalfGammaLoss",
        "loss.HalfMultinomialLoss",
        "loss.HalfPoissonLoss",
        "loss.HalfSquaredError",
        "loss.HalfTweedieLoss",
        "loss.HalfTweedieLossIdentity",
        "loss.HuberLoss",
        "loss.PinballLoss",
    )
}

_NEIGHBOURS = {
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._kd_tree.KDTree",
    *(
        f"sklearn.metrics._dist_metrics.{name}Distance{bits}"
        for name in (
            "BrayCurtis",
            "Canberra",
            "Chebyshev",
            "Dice",
            "Euclidean",
            "Hamming",
            "Haversine",
            "Jaccard",
            "Mahalanobis",
            "Manhattan",
            "Minkowski",
            "RogersTanimoto",
            "RussellRao",
            "SEuclidean",
            "SokalSneath",
        )
        for bits in (32, 64)
    ),
}

_PARTS_OF_ESTIMATORS = {
    "numpy.dtype",
    # Splines and their array functions are parts of transformers.
    "scipy.interpolate._bsplines.BSpline",
    "scipy._lib.array_api_compat.numpy._aliases.asarray",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.calibration._TemperatureScaling",
    "sklearn.compose._column_transformer.make_column_selector",
    "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
    "sklearn.impute._iterative.IterativeImputer",
    "sklearn.impute._iterative._ImputerTriplet",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.utils._bunch.Bunch",
    "sklearn.utils._metadata_requests.MetadataRequest",
    "sklearn.utils._metadata_requests.MethodMetadataRequest",
    *(
        f"sklearn.gaussian_process.kernels.{name}"
        for name in (
            "ConstantKernel",
            "DotProduct",
            "ExpSineSquared",
            "Exponentiation",
            "Matern",
            "PairwiseKernel",
            "Product",
            "RBF",
            "RationalQuadratic",
            "Sum",
            "WhiteKernel",
        )
    ),
    *(
        f"sklearn.feature_selection.{name}"
        for name in (
            "_mutual_info.mutual_info_classif",
            "_mutual_info.mutual_info_regression",
            "_univariate_selection.chi2",
            "_univariate_selection.f_classif",
            "_univariate_selection.f_regression",
            "_univariate_selection.r_regression",
        )
    ),
}

# Searches store their splitters and scorers.
_SEARCHES = {
    "sklearn.metrics._scorer._CurveScorer",
    "sklearn.metrics._scorer._PassthroughScorer",
    "sklearn.metrics._scorer._Scorer",
    *(
        f"sklearn.metrics.{name}"
        for name in (
            "_classification.accuracy_score",
            "_classification.balanced_accuracy_score",
            "_classification.brier_score_loss",
            "_classification.f1_score",
            "_classification.log_loss",
            "_classification.matthews_corrcoef",
            "_classification.precision_score",
            "_classification.recall_score",
            "_ranking.average_precision_score",
            "_ranking.roc_auc_score",
            "_regression.explained_variance_score",
            "_regression.max_error",
            "_regression.mean_absolute_error",
            "_regression.mean_absolute_percentage_error",
            "_regression.mean_gamma_deviance",
            "_regression.mean_pinball_loss",
            "_regression.mean_poisson_deviance",
            "_regression.mean_squared_error",
            "_regression.mean_squared_log_error",
            "_regression.median_absolute_error",
            "_regression.r2_score",
            "_regression.root_mean_squared_error",
            "_regression.root_mean_squared_log_error",
        )
    ),
    *(
        f"sklearn.model_selection._split.{name}"
        for name in (
            "GroupKFold",
            "GroupShuffleSplit",
            "KFold",
            "LeaveOneGroupOut",
            "PredefinedSplit",
            "RepeatedKFold",
            "RepeatedStratifiedKFold",
            "ShuffleSplit",
            "StratifiedGroupKFold",
            "StratifiedKFold",
            "StratifiedShuffleSplit",
            "TimeSeriesSplit",
        )
    ),
}

# Boosters of other libraries, alone and within a pipeline. Their state is in their libraries' own formats.
_BOOSTERS = {
    "collections.OrderedDict",
    "lightgbm.basic.Booster",
    "lightgbm.sklearn.LGBMClassifier",
    "lightgbm.sklearn.LGBMRanker",
    "lightgbm.sklearn.LGBMRegressor",
    "xgboost.core.Booster",
    "xgboost.sklearn.XGBClassifier",
    "xgboost.sklearn.XGBRFClassifier",
    "xgboost.sklearn.XGBRFRegressor",
    "xgboost.sklearn.XGBRanker",
    "xgboost.sklearn.XGBRegressor",
}

TRUSTED_TYPES = frozenset(_TREES | _LOSSES | _NEIGHBOURS | _PARTS_OF_ESTIMATORS | _SEARCHES | _BOOSTERS)

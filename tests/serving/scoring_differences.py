"""The differences that docs/reference/other-servers.md lists between this service and other servers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """A kind of bodies that other servers answer in another way.

    Attributes:
        ours: What the service does.
        theirs: What `mlflow models serve`, MLServer, or both do.
    """

    ours: str
    theirs: str

    @property
    def line(self) -> str:
        """The row of the table."""
        return f"| {self.ours} | {self.theirs} |"


DIFFERENCES = {
    "converted": Difference(
        "A value of another type than its column is refused.",
        'Both convert it: `"1.5"` to 1.5, `1.5` in a long to 1, and every text but `""`, also '
        '`"false"`, to true.',
    ),
    "range": Difference(
        "A number that its column cannot hold is refused.",
        "Both make a float infinite; MLflow wraps whole numbers around, 2147483648 to -2147483648.",
    ),
    "required": Difference(
        "A required value must be present: null, NaN and an empty field of CSV are refused.",
        "Both give the model a missing value, and false in a column of booleans.",
    ),
    "optional": Difference(
        "An optional value of any type may be null or absent, in some rows or in all.",
        "Both refuse null in longs, integers and binaries (MLServer in datetimes, MLflow in "
        "booleans of CSV, too), and give the model false for a boolean that is null.",
    ),
    "moments": Difference(
        "A datetime is a date of ISO 8601 in its extended form, with or without a time.",
        "MLflow accepts what pandas guesses: `12:00` for today at noon, `now`, `2013`, a number "
        "for nanoseconds since 1970. MLServer accepts every form of ISO 8601.",
    ),
    "zones": Difference(
        "A datetime with a time zone is converted to UTC.",
        "Both refuse it.",
    ),
    "base64 undecoded": Difference(
        "A binary is decoded from base64 in every form of a body.",
        "MLflow decodes it in `dataframe_split` and `dataframe_records`. In `instances`, "
        "`inputs` and CSV the model gets the base64.",
    ),
    "base64": Difference(
        "Base64 must be valid.",
        "MLflow ignores characters that are not base64; MLServer gives the model such a text as it is.",
    ),
    "columns in instances": Difference(
        "`instances` is a list of rows; columns are `inputs`.",
        "MLflow accepts columns in `instances`, too.",
    ),
    "index": Difference(
        "The index of `dataframe_split` is ignored.",
        "MLflow repeats a single row as often as the index is long, and refuses other indexes "
        "that do not fit.",
    ),
    "no rows": Difference(
        "A body without rows is refused.",
        "Both respond with an empty list, except MLflow for `dataframe_records`.",
    ),
    "params": Difference(
        "Parameters for the model are refused.",
        "MLflow ignores those that the signature does not name.",
    ),
    "text": Difference(
        "JSON is UTF-8, and has no halves of characters (`\\ud800`).",
        "MLflow accepts UTF-16, and passes half a character on.",
    ),
    "csv missing": Difference(
        "In CSV a missing value is an empty field or, except in texts, `NA`, `NaN`, `nan` or `null`.",
        "MLflow accepts all that pandas calls missing (`None`, `n/a`, `#N/A` ...), also in texts: "
        "`NA`, Namibia, is lost.",
    ),
    "csv values": Difference(
        "In CSV a number has digits, a sign, a point, an exponent, or is `inf` or `Infinity`; a "
        "whole number has digits and a sign; a truth value is `true`, `True` or `TRUE`, or the "
        "same of `false`.",
        "MLflow accepts blanks before numbers, `1e3` and `1.0` as whole numbers, and 1, `tRUE`, "
        "`INF` in other letters.",
    ),
    "csv datetime": Difference(
        "A model with a datetime accepts CSV.",
        "MLflow refuses every CSV for such a model, also without the column.",
    ),
    "csv form": Difference(
        "Each row of CSV has as many fields as the header, and the header no name twice.",
        "MLflow fills short rows with missing values, and takes the first of two columns of one name.",
    ),
    "content type": Difference(
        "The type of a body may be written in capitals and with parameters; its charset must be "
        "UTF-8. For the Open Inference Protocol it is not checked.",
        "MLflow refuses capitals and parameters other than charset; MLServer refuses types other than JSON.",
    ),
    "parquet": Difference(
        "Parquet is refused.",
        "MLflow accepts it.",
    ),
    "compression": Difference(
        "Bodies compressed by gzip or deflate are unpacked; another encoding is refused.",
        "MLflow reads compressed bytes as JSON and fails. MLServer unpacks gzip only. Both read "
        "a body with an unknown encoding as if it were not compressed.",
    ),
    "datatypes": Difference(
        "A tensor may have another width than its column, if the values fit.",
        "MLServer refuses tensors that are wider than the column, and INT32 for a float.",
    ),
    "tensor form": Difference(
        "The data of a tensor are a list of the stated shape, [rows] or [rows, 1]; each name occurs once.",
        "MLServer takes a single value for a list, more axes, and a length of -1; of two tensors "
        "of a name the last counts.",
    ),
    "outputs": Difference(
        "An output that the model does not have is refused.",
        "MLServer responds with the outputs that it has.",
    ),
    "content type parameter": Difference(
        "The parameter `content_type` of a request is ignored: the signature says what the columns are.",
        "MLServer reads the request by it, and fails if it does not know it.",
    ),
    "binary tensors": Difference(
        "The extension for binary tensors is refused.",
        "MLServer ignores its header and parameter when there are data in JSON.",
    ),
}

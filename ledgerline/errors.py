"""The errors that a reader can do something about, as one tree.

The classes are declared in the modules that raise them. Faults of the library itself, and errors of other
libraries, are not in the tree. Three places turn an error into something else: `ledgerline.dagster.failures`
into a failure of Dagster, the command line into one message with exit status 2, and serving into a response.

The tree, with the module that declares each class:

    LedgerlineError
        AlertError                  ledgerline/dagster/alerts.py
        CacheError                  ledgerline/serving/server.py
        CommandsError               ledgerline/cli/project_commands.py
        ComparisonError             ledgerline/evaluation/samples.py
        DeclarationError            ledgerline/dagster/released_models/declaration.py
        DefinitionsError            ledgerline/cli/loaded_project.py
        DeliveryRefusedError        ledgerline/mlflow_store/webhooks.py
        ExecutorError               ledgerline/dagster/executors.py
        ExportFailedError           ledgerline/traces/otlp_responses.py
            SpansRejectedError      ledgerline/traces/otlp_responses.py
            WrongTargetError        ledgerline/traces/otlp_responses.py
        HoldoutError                ledgerline/dagster/released_models/holdout.py
        InstanceError               ledgerline/ledger/storages/config.py
            UnsteadyError           ledgerline/ledger/storages/copied.py
        LanguageModelError          ledgerline/agent/language_model.py
            ContextTooLongError     ledgerline/agent/language_model.py
            MalformedResponseError  ledgerline/agent/language_model.py
            RefusedError            ledgerline/agent/language_model.py
            ServerAbsentError       ledgerline/agent/language_model.py
            ServerBusyError         ledgerline/agent/language_model.py
            ServerFailedError       ledgerline/agent/language_model.py
            StreamBrokenError       ledgerline/agent/language_model.py
            TooSlowError            ledgerline/agent/language_model.py
            UnknownModelError       ledgerline/agent/language_model.py
        LineageError                ledgerline/lineage/projection.py
        ListenError                 ledgerline/serving/server.py
        MemoryUnusableError         ledgerline/agent/memory.py
        MissingExtraError           ledgerline/settings/extras.py
        ModelFailedError            ledgerline/serving/batcher.py
        ModelRefusedError           ledgerline/mlflow_store/stored_model.py
        NewProjectError             ledgerline/new_project/writing.py
        NotComparableError          ledgerline/evaluation/disagreement.py
        NothingToReplayError        ledgerline/requests/replay.py
        ObservingError              ledgerline/cli/observing.py
        OptionsError                ledgerline/cli/commands.py
        OverdueError                ledgerline/serving/batcher.py
        PartitionError              ledgerline/cli/partition_keys.py
        PermanentFailure            ledgerline/dagster/failures.py
        ProjectError                ledgerline/settings/project.py
        ProjectionError             ledgerline/ledger/projection.py
            NotYetError             ledgerline/ledger/projection.py
            RefusedError            ledgerline/ledger/projection.py
            TargetUnavailableError  ledgerline/ledger/projection.py
        PromptError                 ledgerline/agent/prompt.py
        RegistrationError           ledgerline/mlflow_store/webhooks.py
        RegistryError               ledgerline/registry/errors.py
            EntryTakenError         ledgerline/registry/journal.py
            EvidenceError           ledgerline/registry/evidence.py
            JournalError            ledgerline/registry/journal.py
            MoveRefusedError        ledgerline/registry/moves.py
                InPlaceError        ledgerline/registry/promotion.py
                NotApprovedError    ledgerline/registry/promotion.py
                RuleBrokenError     ledgerline/registry/promotion.py
                UnderWayError       ledgerline/registry/moves.py
            ProvenanceError         ledgerline/registry/provenance.py
            UnknownModelError       ledgerline/registry/versions.py
            UnknownVersionError     ledgerline/registry/versions.py
        ReleasedModelError          ledgerline/cli/released.py
        RequestError                ledgerline/serving/request_errors.py
            BodyRefusedError        ledgerline/serving/request_errors.py
            RowsRefusedError        ledgerline/serving/request_errors.py
            TooManyRowsError        ledgerline/serving/request_errors.py
        RequestLogError             ledgerline/requests/request_log.py
        RequestRowsError            ledgerline/serving/batcher.py
        RunConfigError              ledgerline/cli/run_config.py
        RunsNotExportedError        ledgerline/dagster/observed.py
        ServerAddressError          ledgerline/agent/language_model.py
        ServerError                 ledgerline/cli/dev_servers.py
        SettingsError               ledgerline/settings/declaration.py
        StateError                  ledgerline/cli/state.py
        StoreUnreachableError       ledgerline/mlflow_store/store.py
        ToolError                   ledgerline/agent/tools.py
            QueryError              ledgerline/agent/sql_check.py
            SearchError             ledgerline/agent/searxng.py
        UnknownJobError             ledgerline/cli/loaded_project.py
        UnknownPromptError          ledgerline/mlflow_store/prompts.py
        UnreadableEmbedderError     ledgerline/agent/local_embedding.py
        UnsupportedSignatureError   ledgerline/serving/schema.py
        VectorStoreError            ledgerline/agent/vector_store.py
        WatchError                  ledgerline/dagster/released_models/watch.py
        WebhookError                ledgerline/cli/webhooks.py
"""

from typing import ClassVar


class LedgerlineError(Exception):
    """Base class of the errors that a reader can do something about.

    Attributes:
        problem: What is wrong, as a whole sentence that names the thing.
        remedy: What to do about it, as a whole sentence; empty if the problem says it.
        is_transient: True for a class of errors that may pass without a change; a retry may succeed.

    Example:
        >>> error = LedgerlineError("Port 3000 is in use.", "Set LEDGERLINE_DAGSTER_PORT to a free one.")
        >>> str(error)
        'Port 3000 is in use. Set LEDGERLINE_DAGSTER_PORT to a free one.'
    """

    is_transient: ClassVar[bool] = False

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        """Return the problem and the remedy as one message."""
        return f"{self.problem} {self.remedy}".rstrip()

"""Names of an agent's spans and of their attributes, after OpenTelemetry's GenAI conventions.

The conventions (https://opentelemetry.io/docs/specs/semconv/gen-ai/) are still in development. The names are
written here instead of imported from OpenTelemetry's package, which may rename them.
"""

from typing import Final

# Spans
INVOKE_AGENT: Final = "invoke_agent"
CHAT: Final = "chat"
EXECUTE_TOOL: Final = "execute_tool"
RETRIEVE_MEMORY: Final = "retrieve_memory"
PROMPT_CONSTRUCTION: Final = "prompt construction"
MODEL_COMPLETION: Final = "model completion"
QUERY_PLANNING: Final = "query planning"
RESULT_PROCESSING: Final = "result processing"
VECTOR_SEARCH: Final = "vector search"
RANKING: Final = "ranking"

# Attributes of every span of a model, a tool or an agent
OPERATION: Final = "gen_ai.operation.name"
RETRIEVAL: Final = "retrieval"  # the operation of retrieve_memory
PROVIDER: Final = "gen_ai.provider.name"
AGENT_NAME: Final = "gen_ai.agent.name"
CONVERSATION: Final = "gen_ai.conversation.id"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"

# Attributes of a model's spans
REQUEST: Final = "gen_ai.request."  # prefix of the names in LanguageModel.settings
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_STREAM: Final = "gen_ai.request.stream"
RESPONSE_ID: Final = "gen_ai.response.id"
RESPONSE_MODEL: Final = "gen_ai.response.model"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
FIRST_CHUNK_SECONDS: Final = "gen_ai.response.time_to_first_chunk"
TOKENS_PER_SECOND: Final = "ledgerline.tokens_per_second"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"

# Attributes of a tool's spans
TOOL_NAME: Final = "gen_ai.tool.name"
TOOL_TYPE: Final = "gen_ai.tool.type"
TOOL_CALL: Final = "gen_ai.tool.call.id"
ROWS: Final = "ledgerline.tool.rows"
BYTES: Final = "ledgerline.tool.bytes"
QUERIES: Final = "ledgerline.tool.queries"  # number of queries of a search
RESULTS: Final = "ledgerline.tool.results"
LEFT_OUT: Final = "ledgerline.tool.left_out"  # number of results that were duplicates, or did not fit
IS_CUT: Final = "ledgerline.tool.is_cut"  # True if the model received only a part

# Attributes of memory's spans
DATA_SOURCE: Final = "gen_ai.data_source.id"
NEAREST: Final = "ledgerline.memory.k"
DISTANCES: Final = "ledgerline.memory.distances"
RECALLED: Final = "ledgerline.memory.recalled"
EMBEDDER: Final = "ledgerline.memory.embedder"

# Attributes of an agent's span
PROMPT: Final = "gen_ai.prompt.name"
PROMPT_VERSION: Final = "ledgerline.prompt.version"
PROMPT_SHA256: Final = "ledgerline.prompt.sha256"
TURNS: Final = "ledgerline.agent.turns"
TOOL_CALLS: Final = "ledgerline.agent.tool_calls"
OUTCOME: Final = "ledgerline.agent.outcome"  # answered, no_finding, empty or stopped
STOPPED_BY: Final = "ledgerline.agent.stopped_by"  # the limit that was reached

# Attributes of the span in which a prompt is constructed
PROMPT_MESSAGES: Final = "ledgerline.prompt.messages"
PROMPT_CHARACTERS: Final = "ledgerline.prompt.characters"
PROMPT_TOOLS: Final = "ledgerline.prompt.tools"
PROMPT_MEMORIES: Final = "ledgerline.prompt.memories"

# Content of messages: recorded only if OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT is set
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
TOOL_DEFINITIONS: Final = "gen_ai.tool.definitions"
TOOL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
TOOL_RESULT: Final = "gen_ai.tool.call.result"
SEARCH_QUERIES: Final = "ledgerline.search.queries"
RETRIEVAL_QUERY: Final = "gen_ai.retrieval.query.text"
RETRIEVED: Final = "gen_ai.retrieval.documents"

# MLflow shows these beside a span's name; they are set where it cannot derive them from the operation.
SPAN_TYPE: Final = "mlflow.spanType"
AGENT_TYPE, CHAT_TYPE, TOOL_TYPE_OF_SPAN, RETRIEVER_TYPE = "AGENT", "CHAT_MODEL", "TOOL", "RETRIEVER"
MLFLOW_INPUTS: Final = "mlflow.spanInputs"
MLFLOW_OUTPUTS: Final = "mlflow.spanOutputs"

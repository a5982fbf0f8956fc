"""Chat templates that behave as those of well-known model families do, and tokenizers to go with them.

They are written for these tests. Each has the rules that decide what is trained: where thinking is opened, which turns
keep it, what is refused, how calls and tools are shown, which tokens end a turn.
"""

from typing import NamedTuple

from transformers import PreTrainedTokenizerFast

from datagen_train.models.tiny import make_tokenizer


class Family(NamedTuple):
    """A family's template, and its tokens."""

    template: str
    special: tuple[str, ...]
    ends: tuple[str, ...]
    """Tokens that end an answer; the first is the tokenizer's end token."""
    plain: tuple[str, ...] = ()
    """Tokens that are not special, and so are part of a text."""

    def tokenizer(self, texts: list[str]) -> PreTrainedTokenizerFast:
        tokenizer = make_tokenizer(texts, 384)
        tokenizer.add_special_tokens({"additional_special_tokens": list(self.special)})
        tokenizer.add_tokens(list(self.plain))
        tokenizer.eos_token, tokenizer.bos_token = self.ends[0], self.special[0]
        tokenizer.chat_template = self.template
        return tokenizer


QWEN3 = Family(
    # The thinking of turns before the last request is left out; the last turn always has a block, if an empty one.
    r"""
{%- if tools %}<|im_start|>system
{% if messages[0].role == 'system' %}{{ messages[0].content + '\n\n' }}{% endif %}# Tools
{%- for tool in tools %}{{ '\n' + tool | tojson }}{% endfor %}<|im_end|>
{% elif messages[0].role == 'system' %}{{ '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}{% endif %}
{%- set at = namespace(last=-1) %}
{%- for message in messages %}{% if message.role == 'user' %}{% set at.last = loop.index0 %}{% endif %}{% endfor %}
{%- for message in messages %}
{%- if message.role == 'user' %}{{ '<|im_start|>user\n' + message.content + '<|im_end|>\n' }}
{%- elif message.role == 'assistant' %}
    {{- '<|im_start|>assistant\n' }}
    {%- set thought = message.reasoning_content or '' %}
    {%- if loop.index0 > at.last and (loop.last or thought) %}{{ '<think>\n' + thought + '\n</think>\n\n' }}{% endif %}
    {{- message.content or '' }}
    {%- for call in message.tool_calls or [] %}
        {%- if message.content or not loop.first %}{{ '\n' }}{% endif %}
        {{- '<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' }}
        {{- call.function.arguments if call.function.arguments is string else call.function.arguments | tojson }}
        {{- '}\n</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\n' }}
{%- elif message.role == 'tool' %}
    {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{ '<|im_start|>user' }}{% endif %}
    {{- '\n<tool_response>\n' + message.content + '\n</tool_response>' }}
    {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\n' }}{% endif %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}
{%- endif %}""",
    special=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    ends=("<|im_end|>", "<|endoftext|>"),
    plain=("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
)
LLAMA3 = Family(
    # Trims every text; tools stand in the first request; one call a turn, its arguments a mapping.
    r"""
{{- bos_token }}
{%- if messages[0].role == 'system' %}
    {%- set system, messages = messages[0].content | trim, messages[1:] %}
{%- else %}{% set system = '' %}{% endif %}
{{- '<|start_header_id|>system<|end_header_id|>\n\n' + system + '<|eot_id|>' }}
{%- for message in messages %}
{%- if message.tool_calls %}
    {%- if message.tool_calls | length != 1 %}{{ raise_exception('This model calls one tool at a time!') }}{% endif %}
    {%- set function = message.tool_calls[0].function %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n{"name": "' + function.name + '", "parameters": ' }}
    {{- function.arguments | tojson + '}<|eot_id|>' }}
{%- elif message.role == 'tool' %}
    {{- '<|start_header_id|>ipython<|end_header_id|>\n\n' + message.content | tojson + '<|eot_id|>' }}
{%- else %}
    {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' }}
    {%- if tools and loop.first %}{% for tool in tools %}{{ tool | tojson(indent=4) + '\n\n' }}{% endfor %}{% endif %}
    {{- message.content | trim + '<|eot_id|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}""",
    special=("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ends=("<|eot_id|>", "<|end_of_text|>"),
)
GEMMA = Family(
    # Refuses a system message and turns that do not alternate; the end token of the tokenizer is another one.
    r"""
{{- bos_token }}
{%- if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for message in messages %}
    {%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {{- '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\n' }}
    {{- message.content | trim + '<end_of_turn>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}""",
    special=("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
    ends=("<eos>", "<end_of_turn>"),
)
MISTRAL = Family(
    # No generation prompt: [/INST] ends the request. System message and tools stand at the last request.
    r"""
{%- if messages[0].role == 'system' %}{% set system, turns = messages[0].content + '\n\n', messages[1:] %}
{%- else %}{% set system, turns = '', messages %}{% endif %}
{{- bos_token }}
{%- set at = namespace(last=-1, number=0) %}
{%- for message in turns %}
    {%- if message.role in ('user', 'assistant') and not message.tool_calls %}
        {%- if (message.role == 'user') != (at.number % 2 == 0) %}
            {{- raise_exception('After the optional system message, roles must alternate user/assistant') }}
        {%- endif %}
        {%- set at.number = at.number + 1 %}
    {%- endif %}
    {%- if message.role == 'user' %}{% set at.last = loop.index0 %}{% endif %}
{%- endfor %}
{%- for message in turns %}
{%- if message.role == 'user' %}
    {%- if loop.index0 == at.last and tools %}
        {{- '[AVAILABLE_TOOLS] ' + tools | tojson + '[/AVAILABLE_TOOLS]' }}
    {%- endif %}
    {{- '[INST] ' + (system if loop.index0 == at.last else '') + message.content + '[/INST]' }}
{%- elif message.tool_calls %}
    {{- '[TOOL_CALLS] [' }}
    {%- for call in message.tool_calls %}
        {{- call.function | tojson + (']' + eos_token if loop.last else ', ') }}
    {%- endfor %}
{%- elif message.role == 'tool' %}
    {{- '[TOOL_RESULTS] {"content": ' + message.content + '}[/TOOL_RESULTS]' }}
{%- else %}{{ ' ' + message.content + eos_token }}{% endif %}
{%- endfor %}""",
    special=(
        "<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
        "[/TOOL_RESULTS]",
    ),
    ends=("</s>",),
)  # fmt: skip
PHI = Family(
    # Leaves out messages of other roles in silence; a finished conversation ends in one more token.
    r"""
{%- for message in messages %}
{%- if message.role in ('system', 'user', 'assistant') %}
    {{- '<|' + message.role + '|>\n' + message.content + '<|end|>\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}""",
    special=("<s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    ends=("<|endoftext|>", "<|end|>"),
)
GPT_OSS = Family(
    # Channels: thoughts, calls and answers are messages of their own. Thoughts are gone once an answer follows.
    r"""
{{- '<|start|>system<|message|>You are an assistant.<|end|>' }}
{%- if messages[0].role in ('system', 'developer') %}{% set system, turns = messages[0].content, messages[1:] %}
{%- else %}{% set system, turns = '', messages %}{% endif %}
{%- if system or tools %}
    {{- '<|start|>developer<|message|>' + system }}
    {%- for tool in tools or [] %}{{ '\ntype ' + tool.function.name + ' = (_: any) => any;' }}{% endfor %}
    {{- '<|end|>' }}
{%- endif %}
{%- set at = namespace(call=none) %}
{%- for message in turns %}
{%- if message.role == 'user' %}{{ '<|start|>user<|message|>' + message.content + '<|end|>' }}
{%- elif message.role == 'tool' %}
    {{- '<|start|>functions.' + at.call + ' to=assistant<|channel|>commentary<|message|>' }}
    {{- message.content | tojson + '<|end|>' }}
{%- elif 'tool_calls' in message %}
    {%- if message.content and message.thinking %}
        {{- raise_exception('Cannot pass both content and thinking in an assistant message with tool calls!') }}
    {%- endif %}
    {%- set later = namespace(answer=false) %}
    {%- for next in turns[loop.index:] %}
        {%- if next.role == 'assistant' and 'tool_calls' not in next %}{% set later.answer = true %}{% endif %}
    {%- endfor %}
    {%- if (message.content or message.thinking) and not later.answer %}
        {{- '<|start|>assistant<|channel|>analysis<|message|>' + (message.content or message.thinking) + '<|end|>' }}
    {%- endif %}
    {%- set at.call = message.tool_calls[0].function.name %}
    {{- '<|start|>assistant to=functions.' + at.call + '<|channel|>commentary json<|message|>' }}
    {{- message.tool_calls[0].function.arguments | tojson + '<|call|>' }}
{%- elif loop.last and not add_generation_prompt %}
    {%- if message.thinking %}
        {{- '<|start|>assistant<|channel|>analysis<|message|>' + message.thinking + '<|end|>' }}
    {%- endif %}
    {{- '<|start|>assistant<|channel|>final<|message|>' + message.content + '<|return|>' }}
{%- else %}{{ '<|start|>assistant<|channel|>final<|message|>' + message.content + '<|end|>' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}""",
    special=("<|startoftext|>", "<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>", "<|call|>"),
    ends=("<|return|>", "<|call|>"),
)
DEEPSEEK_R1 = Family(
    # The prompt opens the thinking, which no answered turn has; arguments are text; no tools are shown.
    r"""
{%- set at = namespace(system='', after_tool=false) %}
{%- for message in messages %}
    {%- if message.role == 'system' %}{% set at.system = message.content %}{% endif %}
{%- endfor %}
{{- bos_token + at.system }}
{%- for message in messages %}
{%- if message.role == 'user' %}{% set at.after_tool = false %}{{ '<｜User｜>' + message.content }}
{%- elif message.role == 'assistant' and message.content is none %}
    {{- '<｜Assistant｜>' }}
    {%- for call in message.tool_calls %}
        {{- '<｜tool▁call▁begin｜>' + call.function.name + '\n' + call.function.arguments + '<｜tool▁call▁end｜>' }}
    {%- endfor %}
    {{- '<｜end▁of▁sentence｜>' }}
{%- elif message.role == 'assistant' %}
    {{- ('<｜tool▁outputs▁end｜>' if at.after_tool else '<｜Assistant｜>') + message.content.split('</think>')[-1] }}
    {{- '<｜end▁of▁sentence｜>' }}
    {%- set at.after_tool = false %}
{%- elif message.role == 'tool' %}
    {%- set at.after_tool = true %}{{ '<｜tool▁output▁begin｜>' + message.content + '<｜tool▁output▁end｜>' }}
{%- endif %}
{%- endfor %}
{%- if at.after_tool %}{{ '<｜tool▁outputs▁end｜>' }}
{%- elif add_generation_prompt %}{{ '<｜Assistant｜><think>\n' }}{% endif %}""",
    special=("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"),
    ends=("<｜end▁of▁sentence｜>",),
    plain=("<think>", "</think>"),
)
SMOLLM3 = Family(
    # Thinking is a mode that the system message names; the template reads it in the content alone.
    r"""
{%- set mode = '/think' if enable_thinking is not defined or enable_thinking else '/no_think' %}
{{- '<|im_start|>system\nReasoning Mode: ' + mode + '\n' }}
{%- if messages[0].role == 'system' %}{{ messages[0].content + '\n' }}{% endif %}
{%- for tool in tools or [] %}{{ tool | string + '\n' }}{% endfor %}
{{- '<|im_end|>\n' }}
{%- for message in messages %}
{%- set content = message.content if message.content is string else '' %}
{%- if message.role == 'user' %}{{ '<|im_start|>user\n' + content + '<|im_end|>\n' }}
{%- elif message.role == 'assistant' %}
    {{- '<|im_start|>assistant\n' + ('' if mode == '/think' else '<think>\n\n</think>\n\n') + content }}
    {%- for call in message.tool_calls or [] %}{{ '<tool_call>' + call.function | tojson + '</tool_call>' }}{% endfor %}
    {{- '<|im_end|>\n' }}
{%- elif message.role == 'tool' %}{{ '<|im_start|>user\n' + content + '<|im_end|>\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' + ('' if mode == '/think' else '<think>\n\n</think>\n\n') }}
{%- endif %}""",
    special=("<|begin_of_text|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>"),
    ends=("<|im_end|>",),
    plain=("<think>", "</think>"),
)
FAMILIES = {
    "Qwen3": QWEN3, "Llama 3": LLAMA3, "Gemma": GEMMA, "Mistral": MISTRAL, "Phi": PHI, "GPT-OSS": GPT_OSS,
    "DeepSeek-R1 distill": DEEPSEEK_R1, "SmolLM3": SMOLLM3,
}  # fmt: skip

"""Makes tiny-mixtral/, a Hugging Face folder with random weights, and recorded.json, what transformers computes with it.

    python3 tests/data/make.py        # in crates/hybridnorm-train, with torch 2.15, transformers 5.24, tokenizers

Everything is computed in double precision on one thread. The tests of `generate` and `eval` read both.
"""

import gzip
import json
import math
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, MixtralConfig, MixtralForCausalLM, PreTrainedTokenizerFast

HERE = Path(__file__).parent
FOLDER = HERE / "tiny-mixtral"
SPECIAL = ["<s>", "<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>"]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}\n"
    "    {%- if message['role'] not in ['system', 'user', 'assistant'] %}\n"
    "        {{- raise_exception('unknown role ' ~ message['role']) }}\n"
    "    {%- endif %}\n"
    "{{- '<|' + message['role'] + '|>' + message['content'].strip() + '\\n' }}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
CONVERSATION = [
    {"role": "system", "content": " Be brief. "},
    {"role": "user", "content": "What is the square of 7? <s>"},
]
TEXT = "".join(f"The square of {n} is {n * n}, and its cube is {n**3}.\n" for n in range(60))


def make_tokenizer():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator([TEXT], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="<|endoftext|>", chat_template=TEMPLATE
    )
    fast.save_pretrained(FOLDER)
    return fast


def make_model():
    torch.manual_seed(1)
    config = MixtralConfig(
        vocab_size=304, hidden_size=32, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=3, num_experts_per_tok=2, max_position_embeddings=64,
        initializer_range=0.25, bos_token_id=0, eos_token_id=1, tie_word_embeddings=False,
    )
    MixtralForCausalLM(config).save_pretrained(FOLDER)


def generation(model, tokenizer):
    prompt = "The square of 7"
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    out = model.generate(ids, do_sample=False, max_new_tokens=24, eos_token_id=-1)
    chat = tokenizer.apply_chat_template(CONVERSATION, tokenize=False, add_generation_prompt=True)
    chat_ids = tokenizer(chat, add_special_tokens=False).input_ids
    return {
        "prompt": prompt,
        "prompt_ids": ids[0].tolist(),
        "greedy_ids": out[0, ids.shape[1] :].tolist(),
        "greedy_text": tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True),
        "messages": CONVERSATION,
        "chat": chat,
        "chat_ids": chat_ids,
    }


def log_probabilities(model, ids):
    """ln p of each id after the first."""
    logits = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    return logits.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]


def text_score(model, tokenizer, documents, context, stride):
    """Cross-entropy of documents behind <s>, each in windows of `context` tokens that move on by `stride`."""
    nats, tokens, size = 0.0, 0, 0
    for document in documents:
        ids = [0] + tokenizer(document, add_special_tokens=False).input_ids
        done, start = 1, 0
        while done < len(ids):
            end = min(start + context + 1, len(ids))
            counted = end - done
            nats -= log_probabilities(model, ids[start:end])[-counted:].sum().item()
            done, start = end, start + stride
        tokens += len(ids) - 1
        size += len(document.encode())
    return {
        "tokens": tokens,
        "bytes": size,
        "nats_per_token": nats / tokens,
        "perplexity": math.exp(nats / tokens),
        "bits_per_byte": nats / math.log(2) / size,
    }


def answer(model, tokenizer, context, text):
    """ln p of a continuation, with context and text encoded apart: they are made so that this is the same."""
    before = tokenizer(context, add_special_tokens=False).input_ids
    after = tokenizer(text, add_special_tokens=False).input_ids
    return log_probabilities(model, [0] + before + after)[-len(after) :].sum().item(), len(after)


def task_score(model, tokenizer, questions):
    """Each way to compare answers, by the questions' log-likelihoods."""
    names = ["raw", "per_token", "per_character", "per_byte", "unconditional"]
    right, bits, answers = dict.fromkeys(names, 0), [], []
    for question in questions:
        rows = []
        for context, text, without in question["choices"]:
            likelihood, tokens = answer(model, tokenizer, context, text)
            alone, _ = answer(model, tokenizer, without, text)
            rows.append((likelihood, alone, tokens, len(text), len(text.encode())))
        figures = {
            "raw": [row[0] for row in rows],
            "per_token": [row[0] / row[2] for row in rows],
            "per_character": [row[0] / row[3] for row in rows],
            "per_byte": [row[0] / row[4] for row in rows],
            "unconditional": [row[0] - row[1] for row in rows],
        }
        for name in names:
            right[name] += max(range(len(rows)), key=figures[name].__getitem__) == question["gold"]
        gold = rows[question["gold"]]
        bits.append(-gold[0] / math.log(2) / gold[4])
        answers.append([{"log_likelihood": row[0], "unconditional": row[1], "tokens": row[2]} for row in rows])
    return {
        "questions": len(questions),
        "accuracy": {name: count / len(questions) for name, count in right.items()},
        "gold_bits_per_byte": sum(bits) / len(bits),
        "answers": answers,
    }


def squares(n):
    """Question n of the file of this program's own format."""
    wrong = [n * n + 1, n**3, "naïve", f"{n} times {n}"]
    choices = wrong[: n % 3 + 1] + [n * n] + wrong[n % 3 + 1 : 3]
    line = {"id": f"q{n}", "prompt": f"The square of {n} is", "choices": [str(c) for c in choices], "gold": n % 3 + 1}
    return line | ({"unconditional": "Answer:"} if n % 2 else {})


def requests(n):
    """The lines of question n as OLMo's request files have them: the second half without the question."""
    texts = [f" {n**3}", f" {n * n}", " none of them"]
    label = n % 3
    line = {"request_type": "loglikelihood", "doc": {}, "task_name": "cubes", "native_id": n, "label": label}
    context = f"The cube of 2 is 8.\n\nThe cube of {n} is"
    return [
        line | {"request": {"context": before, "continuation": text}, "idx": i, "doc_id": doc}
        for doc, before in [(n, context), (1_000_000 + n, "Answer:")]
        for i, text in enumerate(texts)
    ]


def evaluation(model, tokenizer):
    documents = [TEXT[:700], "Née à Zürich.", TEXT[700:740]]
    (HERE / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    own = [squares(n) for n in range(3, 15)]
    (HERE / "squares.jsonl").write_text("".join(json.dumps(line) + "\n" for line in own))
    lines = [line for n in range(8) for line in requests(n)]
    folder = HERE / "cubes" / "rc_1shot"
    folder.mkdir(parents=True, exist_ok=True)
    # Without a time in the header, so that the same lines are the same bytes.
    packed = gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode(), mtime=0)
    (folder / "requests.jsonl.gz").write_bytes(packed)
    squares_questions = [
        {"gold": q["gold"], "choices": [(q["prompt"], f" {c}", q.get("unconditional", "")) for c in q["choices"]]}
        for q in own
    ]
    cubes_questions = [
        {"gold": n % 3, "choices": [(r["request"]["context"], r["request"]["continuation"], "Answer:") for r in requests(n)[:3]]}
        for n in range(8)
    ]
    return {
        "texts": {str(stride): text_score(model, tokenizer, documents, 64, stride) for stride in [64, 32, 5]},
        "tasks": {
            "squares": task_score(model, tokenizer, squares_questions),
            "cubes_rc_1shot": task_score(model, tokenizer, cubes_questions),
        },
    }


def main():
    torch.set_num_threads(1)
    make_model()
    tokenizer = make_tokenizer()
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float64, attn_implementation="eager", experts_implementation="eager")
    model.eval()
    with torch.no_grad():
        recorded = {"generation": generation(model, tokenizer), "evaluation": evaluation(model, tokenizer)}
    (HERE / "recorded.json").write_text(json.dumps(recorded, indent=1) + "\n")


if __name__ == "__main__":
    main()

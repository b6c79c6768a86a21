# quire.bash - completion of the quire command for bash.
# SPDX-License-Identifier: Apache-2.0

# Words of each command; a test compares them with what --help lists.
_quire_words()
{
    local cache="-m --threads --layout --block-size --kv --kv-rotation" words=
    local engine="$cache -c --kv-memory"
    case $1 in
    "") words="run tokenize eval info plan trace bench --version" ;;
    run)
        words="-p -f --ids -n --n --temp --top-k --top-p --min-p --repeat-penalty --seed --raw"
        words+=" --system --template --stats --json $engine"
        ;;
    tokenize) words="-p -f --decode --bos -m" ;;
    eval) words="-f --ids --chunks --logits --compare --svg --json $engine" ;;
    info) words="--cpu --json" ;;
    plan) words="--kv --memory --context --block-size --prefix --json" ;;
    trace) words="replay" ;;
    "trace replay")
        words="--block-size --blocks --memory --bytes-per-token --eviction --seqs --step-tokens"
        words+=" --step-ms --json"
        ;;
    bench) words="model attn linear roof cache evict" ;;
    "bench model")
        words="--depth --batch --prompt --generate --runs --shared --no-cascade --json $cache"
        ;;
    "bench attn" | "bench linear") words="--only --svg --threads --runs --quick --json" ;;
    "bench roof") words="--only --threads --runs --quick --json" ;;
    "bench cache") words="--backend --runs --json" ;;
    "bench evict") words="--requests --seed --json" ;;
    esac
    printf '%s' "$words --help"
}

_quire()
{
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} command=
    COMPREPLY=()
    if ((COMP_CWORD > 1)); then
        command=${COMP_WORDS[1]}
    fi
    if [[ $command =~ ^(bench|trace)$ ]] && ((COMP_CWORD > 2)); then
        command="$command ${COMP_WORDS[2]}"
    fi
    case $before in
    -m | -f | --ids | --logits | --svg)
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
        return
        ;;
    --layout) mapfile -t COMPREPLY < <(compgen -W "auto paged contiguous" -- "$word") ;;
    --kv) mapfile -t COMPREPLY < <(compgen -W "f32 f16 bf16 q8 q4" -- "$word") ;;
    --kv-rotation) mapfile -t COMPREPLY < <(compgen -W "auto none hadamard" -- "$word") ;;
    --backend) mapfile -t COMPREPLY < <(compgen -W "cpu none" -- "$word") ;;
    --eviction) mapfile -t COMPREPLY < <(compgen -W "lru cost" -- "$word") ;;
    --template) mapfile -t COMPREPLY < <(compgen -W "chatml llama3 gemma" -- "$word") ;;
    -p | -n | --n | -c | --temp | --top-k | --top-p | --min-p | --repeat-penalty | --seed | \
        --system | --threads | --block-size | --kv-memory | --chunks | --compare | --depth | \
        --batch | \
        --prompt | --generate | --runs | --memory | --context | --prefix | --blocks | \
        --bytes-per-token | --seqs | --step-tokens | --step-ms | --requests | --only) ;;
    *)
        mapfile -t COMPREPLY < <(compgen -W "$(_quire_words "$command")" -- "$word")
        if [[ $command =~ ^(info|plan|trace replay)$ && $word != -* ]]; then
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$word")
        fi
        ;;
    esac
}

complete -F _quire quire

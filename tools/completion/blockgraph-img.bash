# SPDX-License-Identifier: LGPL-2.1-or-later
# bash completion for blockgraph-img: commands, options, formats, files. It
# asks the program itself, so it knows what the program knows.

# The options in the help text of "$@".
_blockgraph_img_options() {
    "$@" --help 2> /dev/null |
        sed -nE 's/^  (-.*)$/\1/p' | grep -oE -- '(^|[ ,])--?[[:alnum:]][-[:alnum:]]*' |
        tr -d ' ,'
}

# What may follow option $2 of program $1; fails if that is a file name.
_blockgraph_img_values() {
    case $2 in
        --format | --a-format | --b-format | --source-format | --target-format | \
            --output-format | --backing-format | -f | -F | -O)
            "$1" --help 2> /dev/null | sed -n 's/^Supported formats: //p' ;;
        --output) echo human json ascii tree dot ;;
        --aio) echo io_uring threads ;;
        --digest) echo md5 sha1 sha256 sha384 sha512 ;;
        --cache | --source-cache | --target-cache | --output-cache | --backing-cache | -t)
            echo none writeback writethrough directsync unsafe ;;
        --repair) echo leaks all ;;
        --preallocation) echo off metadata falloc full ;;
        *) return 1 ;;
    esac
}

_blockgraph_img() {
    local program=${COMP_WORDS[0]} word=${COMP_WORDS[COMP_CWORD]} previous command='' values i
    previous=${COMP_WORDS[COMP_CWORD - 1]}
    # --option=value comes as three words.
    if [[ $word == = ]]; then
        word=''
    elif [[ $previous == = ]]; then
        previous=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    for ((i = 1; i < COMP_CWORD; i++)); do
        if [[ ${COMP_WORDS[i]} != [-=]* && ${COMP_WORDS[i - 1]} != --aio ]]; then
            command=${COMP_WORDS[i]}
            break
        fi
    done
    COMPREPLY=()
    if [[ $word != -* ]] && values=$(_blockgraph_img_values "$program" "$previous"); then
        mapfile -t COMPREPLY < <(compgen -W "$values" -- "$word")
    elif [[ -z $command && $word != -* ]]; then
        values=$("$program" --help 2> /dev/null | sed -nE 's/^  ([a-z]+) - .*/\1/p')
        mapfile -t COMPREPLY < <(compgen -W "$values" -- "$word")
    elif [[ $word == -* ]]; then
        # shellcheck disable=SC2086
        values=$(_blockgraph_img_options "$program" $command)
        mapfile -t COMPREPLY < <(compgen -W "$values" -- "$word")
    else
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
    fi
}

complete -o filenames -F _blockgraph_img blockgraph-img

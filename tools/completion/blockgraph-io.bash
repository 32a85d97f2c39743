# SPDX-License-Identifier: LGPL-2.1-or-later
# bash completion for blockgraph-io: options, commands behind -c, formats, files.
# It asks the program itself, so it knows what the program knows.

# What may follow option $2 of program $1; fails if that is a file name.
_blockgraph_io_values() {
    case $2 in
        -c | --cmd) "$1" -c help 2> /dev/null | sed -nE 's/^([a-z_]+) .*-- .*/\1/p' ;;
        -f | --format)
            "${1%io}img" --help 2> /dev/null | sed -n 's/^Supported formats: //p' ;;
        -i | --aio) echo threads native io_uring ;;
        -t | --cache) echo none writeback writethrough directsync unsafe ;;
        -d | --discard) echo ignore unmap ;;
        -T | --trace) echo help ;;
        *) return 1 ;;
    esac
}

_blockgraph_io() {
    local program=${COMP_WORDS[0]} word=${COMP_WORDS[COMP_CWORD]} previous values
    previous=${COMP_WORDS[COMP_CWORD - 1]}
    # --option=value comes as three words.
    if [[ $word == = ]]; then
        word=''
    elif [[ $previous == = ]]; then
        previous=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    COMPREPLY=()
    if [[ $word != -* ]] && values=$(_blockgraph_io_values "$program" "$previous"); then
        mapfile -t COMPREPLY < <(compgen -W "$values" -- "$word")
    elif [[ $word == -* ]]; then
        values=$("$program" --help 2> /dev/null | sed -nE 's/^  (-.*)$/\1/p' |
            grep -oE -- '(^|[ ,])--?[[:alnum:]][-[:alnum:]]*' | tr -d ' ,')
        mapfile -t COMPREPLY < <(compgen -W "$values" -- "$word")
    else
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
    fi
}

complete -o filenames -F _blockgraph_io blockgraph-io

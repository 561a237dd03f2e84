"""`lamina completion`: a script that teaches a shell to complete `lamina`.

The scripts are short: they hand the line to `lamina __complete` (see `lamina.cli.complete`) and show what comes back.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

_BASH = r"""# bash completion for lamina. To use it now: source <(lamina completion bash)
# For good: lamina completion bash > ~/.local/share/bash-completion/completions/lamina
_lamina() {
    local IFS=$' \t\n' line=${COMP_LINE:0:COMP_POINT} text cur breaks strip
    local -a words
    # Not COMP_WORDS: it is split at ':' and '=', which stand in names and options.
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    cur=${words[${#words[@]}-1]}
    [[ $COMP_WORDBREAKS == *:* ]] && breaks=:
    [[ $COMP_WORDBREAKS == *=* ]] && breaks+==
    [[ $breaks ]] && strip=${cur%"${cur##*["$breaks"]}"}
    COMPREPLY=()
    while IFS=$'\t' read -r text _; do
        case $text in
            :files) compopt -o default 2>/dev/null ;;
            :dirs) compopt -o dirnames 2>/dev/null ;;
            ?*) COMPREPLY+=("${text#"$strip"}") ;;
        esac
    done < <("${words[0]/#\~/$HOME}" __complete -- "${words[@]:1}" 2>/dev/null)
}
complete -F _lamina lamina
"""

_ZSH = r"""#compdef lamina
# zsh completion for lamina. To use it now: source <(lamina completion zsh)
# For good: lamina completion zsh > a file _lamina in a directory of $fpath
_lamina() {
    local line text place
    local -a found
    while IFS= read -r line; do
        case $line in
            :files|:dirs) place=$line ;;
            ?*)
                text=${line%%$'\t'*}
                found+=("${text//:/\\:}:${line#*$'\t'}") ;;
        esac
    done < <(${~words[1]} __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)
    (( $#found )) && _describe lamina found
    case $place in
        :files) _files ;;
        :dirs) _files -/ ;;
    esac
}
if [[ $funcstack[1] == _lamina ]]; then
    _lamina "$@"
else
    compdef _lamina lamina
fi
"""

_FISH = r"""# fish completion for lamina. To use it now: lamina completion fish | source
# For good: lamina completion fish > ~/.config/fish/completions/lamina.fish
function __lamina_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    for line in ($words[1] __complete -- $words[2..-1] "$current" 2>/dev/null)
        switch $line
            case :files
                __fish_complete_path "$current"
            case :dirs
                __fish_complete_directories "$current" ''
            case '*'
                echo $line
        end
    end
end
complete -c lamina -f -a '(__lamina_complete)'
"""

SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("shell", choices=list(SCRIPTS), help="the shell to teach")


def run(args: Namespace) -> int:
    """Print the script."""
    print(SCRIPTS[args.shell], end="")
    return 0

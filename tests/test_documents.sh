# test_documents.sh - what the documents point to is there: the README's program is examples/attention.c, each link and
# picture leads to a file, and each file that is named in `backticks` exists, by its path or, where only a name or the
# end of one stands there, somewhere in the tree.
set -eu
cd "$SACCADE_SOURCE"
failures=0
complain() {
    echo "$1"
    failures=1
}

quoted=$(sed -n '/^```c$/,/^```$/p' README.md | sed '1d;$d')
[ "$quoted" = "$(cat examples/attention.c)" ] || complain "README.md: its program differs from examples/attention.c"

tree=$(find . -path ./.git -prune -o -path './build*' -prune -o -type f -print)
for page in README.md docs/*.md docs/*/*.md tests/data/README.md; do
    folder=$(dirname "$page")
    for target in $(grep -o -e '](\([^)#]*\))' -e 'src="[^"]*"' "$page" | sed 's/^](//; s/^src="//; s/[)"]$//'); do
        case $target in http*) continue ;; esac
        [ -e "$folder/$target" ] || complain "$page: the link to $target leads nowhere"
    done
    for name in $(grep -o '`[A-Za-z0-9_./]*\.\(c\|h\|cu\|py\|sh\|md\|cmake\)`' "$page" | tr -d '`' | sort -u); do
        case $name in
        saccade_declarations.h) ;; # made by the build
        _*) echo "$tree" | grep -q "$name\$" || complain "$page: no file ends in $name" ;;
        *) echo "$tree" | grep -q "/$name\$" || complain "$page: there is no $name" ;;
        esac
    done
done
exit "$failures"

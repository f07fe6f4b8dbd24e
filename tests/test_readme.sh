# test_readme.sh - the README's program is examples/attention.c, and every path that it links to is there.
set -eu
cd "$SACCADE_SOURCE"
failures=0
quoted=$(sed -n '/^```c$/,/^```$/p' README.md | sed '1d;$d')
if [ "$quoted" != "$(cat examples/attention.c)" ]; then
    echo "README.md: its program differs from examples/attention.c"
    failures=1
fi
for path in $(grep -o '](\([^)]*\))' README.md | tr -d '()]') $(grep -o 'src="[^"]*"' README.md | cut -d'"' -f2); do
    if [ ! -e "$path" ]; then
        echo "README.md: $path does not exist"
        failures=1
    fi
done
exit "$failures"

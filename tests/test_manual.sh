# test_manual.sh - the manual page and the help texts name the same options, and README.md no others.
set -eu
cd "$SACCADE_SOURCE"
[ -n "$SACCADE_COMMAND" ] || { echo "skipped: this build has no command"; exit 0; }

options() { grep -o -e '--[a-z][a-z-]*' | sort -u; }
scratch=$(mktemp -d)
trap 'rm -r "$scratch"' EXIT
for subcommand in '' attention check bench nsa mask backends; do
    # shellcheck disable=SC2086  # an empty name is no argument
    "$SACCADE_COMMAND" $subcommand --help
done | options >"$scratch/help"
sed 's/\\-/-/g' docs/saccade.1 | options >"$scratch/manual"
sed -n '/^```$/,/^```$/p' README.md | grep -e '^ *build/saccade ' -e '^ *saccade ' -e '^ *--' | options >"$scratch/readme"

failures=0
complain() {
    if [ -n "$1" ]; then
        echo "$2: $1"
        failures=1
    fi
}
complain "$(comm -23 "$scratch/help" "$scratch/manual" | tr '\n' ' ')" "not in docs/saccade.1"
complain "$(comm -13 "$scratch/help" "$scratch/manual" | tr '\n' ' ')" "in docs/saccade.1, but no option"
complain "$(comm -13 "$scratch/help" "$scratch/readme" | tr '\n' ' ')" "in README.md, but no option"
version=$("$SACCADE_COMMAND" --version | sed 's/^saccade \([0-9]*\.[0-9]*\).*/\1/')
grep -q "^\.TH SACCADE 1 .*saccade $version\"" docs/saccade.1 || complain "$version" "docs/saccade.1 is of another version than"
exit "$failures"

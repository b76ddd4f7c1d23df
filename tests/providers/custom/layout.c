/* Prints where each member of each structure lies. */
#include "provider.h"
#include <stddef.h>
#include <stdio.h>
#define AT(type, member) printf(#type "." #member " %zu\n", offsetof(type, member))
#define SIZE(type) printf(#type " %zu\n", sizeof(type))
int main(void) {
    SIZE(Result); AT(Result, error); AT(Result, reason);
    SIZE(Element); AT(Element, key); AT(Element, value);
    SIZE(Registration); AT(Registration, active); AT(Registration, ttl);
    SIZE(Dimension); AT(Dimension, key); AT(Dimension, val);
    SIZE(Metric); AT(Metric, metricName); AT(Metric, metricValue); AT(Metric, timestamp); AT(Metric, dimensions);
    SIZE(Model); AT(Model, name); AT(Model, version); AT(Model, num_metrics); AT(Model, metrics);
    return 0;
}

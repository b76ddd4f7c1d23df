/* The C interface of a Custom provider. */
#include <stdbool.h>
typedef struct { int error; const char *reason; } Result;
typedef struct { const char *key, *value; } Element;
typedef struct { bool active; long ttl; } Registration;
typedef struct { char key[64]; char val[256]; } Dimension;
typedef struct { char metricName[101]; double metricValue; char timestamp[33]; Dimension dimensions[32]; } Metric;
typedef struct { char name[257]; char version[65]; int num_metrics; Metric metrics[32]; } Model;

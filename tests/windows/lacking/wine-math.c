/* Complex numbers of the C library, which wine 8 has not: as Microsoft's have them, where long double is double. */
#include <complex.h>

typedef struct {
    double real, imaginary;
} Double;

typedef struct {
    float real, imaginary;
} Float;

static double complex of_double(Double z)
{
    return z.real + z.imaginary * I;
}

static float complex of_float(Float z)
{
    return z.real + z.imaginary * I;
}

#define NUMBER_D(name, function) double lk_##name(Double z) { return function(of_double(z)); }
#define NUMBER_F(name, function) float lk_##name(Float z) { return function(of_float(z)); }
#define COMPLEX_D(name, function) \
    Double lk_##name(Double z) \
    { \
        double complex y = function(of_double(z)); \
        return (Double){creal(y), cimag(y)}; \
    }
#define COMPLEX_F(name, function) \
    Float lk_##name(Float z) \
    { \
        float complex y = function(of_float(z)); \
        return (Float){crealf(y), cimagf(y)}; \
    }
#define POWER_D(name) \
    Double lk_##name(Double base, Double exponent) \
    { \
        double complex y = cpow(of_double(base), of_double(exponent)); \
        return (Double){creal(y), cimag(y)}; \
    }
#define POWER_F(name) \
    Float lk_##name(Float base, Float exponent) \
    { \
        float complex y = cpowf(of_float(base), of_float(exponent)); \
        return (Float){crealf(y), cimagf(y)}; \
    }

NUMBER_F(cabsf, cabsf)
NUMBER_D(cabsl, cabs)
NUMBER_D(carg, carg)
NUMBER_F(cargf, cargf)
NUMBER_D(cargl, carg)
COMPLEX_D(ccos, ccos)
COMPLEX_F(ccosf, ccosf)
COMPLEX_D(ccosh, ccosh)
COMPLEX_F(ccoshf, ccoshf)
COMPLEX_D(ccoshl, ccosh)
COMPLEX_D(ccosl, ccos)
COMPLEX_D(cexp, cexp)
COMPLEX_F(cexpf, cexpf)
COMPLEX_D(cexpl, cexp)
NUMBER_D(cimag, cimag)
NUMBER_F(cimagf, cimagf)
NUMBER_D(cimagl, cimag)
POWER_D(cpow)
POWER_F(cpowf)
POWER_D(cpowl)
NUMBER_D(creal, creal)
NUMBER_F(crealf, crealf)
NUMBER_D(creall, creal)
COMPLEX_D(csin, csin)
COMPLEX_F(csinf, csinf)
COMPLEX_D(csinh, csinh)
COMPLEX_F(csinhf, csinhf)
COMPLEX_D(csinhl, csinh)
COMPLEX_D(csinl, csin)
COMPLEX_D(ctan, ctan)
COMPLEX_F(ctanf, ctanf)
COMPLEX_D(ctanh, ctanh)
COMPLEX_F(ctanhf, ctanhf)
COMPLEX_D(ctanhl, ctanh)
COMPLEX_D(ctanl, ctan)

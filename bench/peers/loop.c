/* A round of a cohort as one writes it in an afternoon: plain loops, one device after the other, the two networks by hand.
 * Weights are in Keras's layout. Each kernel moves as soon as the delta of its input is known. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static void dense(const float *w, const float *b, const float *x, int inputs, int outputs, float *y)
{
    memcpy(y, b, (size_t)outputs * sizeof *y);
    for (int i = 0; i < inputs; i++)
        for (int j = 0; j < outputs; j++)
            y[j] += x[i] * w[i * outputs + j];
}

/* Moves w and b by -rate * gradient, with the gradient g at the outputs; back, if not NULL, gets the gradient at the inputs. */
static void dense_step(float *w, float *b, const float *x, const float *g, int inputs, int outputs, float rate, float *back)
{
    for (int i = 0; i < inputs; i++) {
        float sum = 0, scaled = rate * x[i];
        for (int j = 0; j < outputs; j++) {
            sum += g[j] * w[i * outputs + j];
            w[i * outputs + j] -= scaled * g[j];
        }
        if (back)
            back[i] = sum;
    }
    for (int j = 0; j < outputs; j++)
        b[j] -= rate * g[j];
}

/* 3 x 3 at a stride of 2 on a square of n rows; the last window reaches one row and column of zeros beyond it. */
static void conv(const float *w, const float *b, const float *x, int n, int inputs, int outputs, float *y)
{
    for (int r = 0; r < n / 2; r++)
        for (int c = 0; c < n / 2; c++, y += outputs) {
            memcpy(y, b, (size_t)outputs * sizeof *y);
            for (int i = 0; i < 3 && 2 * r + i < n; i++)
                for (int j = 0; j < 3 && 2 * c + j < n; j++)
                    for (int k = 0; k < inputs; k++) {
                        float value = x[((2 * r + i) * n + 2 * c + j) * inputs + k];
                        const float *row = w + ((i * 3 + j) * inputs + k) * outputs;
                        for (int o = 0; o < outputs; o++)
                            y[o] += value * row[o];
                    }
            for (int o = 0; o < outputs; o++)
                y[o] = y[o] > 0 ? y[o] : 0;
        }
}

/* As dense_step. The gradient of the kernel is of all windows, so it is summed up first. */
static void conv_step(float *w, float *b, const float *x, const float *g, int n, int inputs, int outputs, float rate, float *back)
{
    float sums[9 * 8 * 16] = {0};
    if (back)
        memset(back, 0, (size_t)(n * n * inputs) * sizeof *back);
    for (int r = 0; r < n / 2; r++)
        for (int c = 0; c < n / 2; c++) {
            const float *at = g + (r * (n / 2) + c) * outputs;
            for (int i = 0; i < 3 && 2 * r + i < n; i++)
                for (int j = 0; j < 3 && 2 * c + j < n; j++)
                    for (int k = 0; k < inputs; k++) {
                        int pixel = ((2 * r + i) * n + 2 * c + j) * inputs + k, row = ((i * 3 + j) * inputs + k) * outputs;
                        float sum = 0;
                        for (int o = 0; o < outputs; o++) {
                            sums[row + o] += x[pixel] * at[o];
                            sum += w[row + o] * at[o];
                        }
                        if (back)
                            back[pixel] += sum;
                    }
            for (int o = 0; o < outputs; o++)
                b[o] -= rate * at[o];
        }
    for (int i = 0; i < 9 * inputs * outputs; i++)
        w[i] -= rate * sums[i];
}

static void sine_step(float *w, const float *x, const float *y, float rate)
{
    float *b1 = w + 32, *w2 = b1 + 32, *b2 = w2 + 1024, *w3 = b2 + 32, *b3 = w3 + 32, h1[32], h2[32], g1[32], g2[32], out, g;
    dense(w, b1, x, 1, 32, h1);
    for (int i = 0; i < 32; i++)
        h1[i] = tanhf(h1[i]);
    dense(w2, b2, h1, 32, 32, h2);
    for (int i = 0; i < 32; i++)
        h2[i] = tanhf(h2[i]);
    dense(w3, b3, h2, 32, 1, &out);
    g = 2 * (out - *y);
    dense_step(w3, b3, h2, &g, 32, 1, rate, g2);
    for (int i = 0; i < 32; i++)
        g2[i] *= 1 - h2[i] * h2[i];
    dense_step(w2, b2, h1, g2, 32, 32, rate, g1);
    for (int i = 0; i < 32; i++)
        g1[i] *= 1 - h1[i] * h1[i];
    dense_step(w, b1, x, g1, 1, 32, rate, NULL);
}

static void image_step(float *w, const uint8_t *pixels, const float *y, float rate)
{
    float *b1 = w + 72, *w2 = b1 + 8, *b2 = w2 + 1152, *w3 = b2 + 16, *b3 = w3 + 3920;
    float x[784], h1[14 * 14 * 8], h2[784], g1[14 * 14 * 8], g2[784], out[5], total = 0, most;
    for (int i = 0; i < 784; i++)
        x[i] = pixels[i];
    conv(w, b1, x, 28, 1, 8, h1);
    conv(w2, b2, h1, 14, 8, 16, h2);
    dense(w3, b3, h2, 784, 5, out);
    most = out[0];
    for (int i = 1; i < 5; i++)
        most = fmaxf(most, out[i]);
    for (int i = 0; i < 5; i++)
        total += out[i] = expf(out[i] - most);
    for (int i = 0; i < 5; i++)
        out[i] = out[i] / total - y[i];
    dense_step(w3, b3, h2, out, 784, 5, rate, g2);
    for (int i = 0; i < 784; i++)
        g2[i] = h2[i] > 0 ? g2[i] : 0;
    conv_step(w2, b2, h1, g2, 14, 8, 16, rate, g1);
    for (int i = 0; i < 14 * 14 * 8; i++)
        g1[i] = h1[i] > 0 ? g1[i] : 0;
    conv_step(w, b1, x, g1, 28, 1, 8, rate, NULL);
}

/* Adds each device's phi to sum. x is float for the sine, uint8 for images. */
void peers_round(int images, const float *theta, const void *x, const float *y, int cohort, int samples, float rate, double *sum)
{
    size_t weights = images ? 5173 : 1153;
    float phi[5173];
    for (int d = 0; d < cohort; d++) {
        memcpy(phi, theta, weights * sizeof *phi);
        for (int s = 0; s < samples; s++) {
            size_t at = (size_t)d * (size_t)samples + (size_t)s;
            if (images)
                image_step(phi, (const uint8_t *)x + 784 * at, y + 5 * at, rate);
            else
                sine_step(phi, (const float *)x + at, y + at, rate);
        }
        for (size_t i = 0; i < weights; i++)
            sum[i] += phi[i];
    }
}

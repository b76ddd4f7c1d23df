/* One agent's life through the C ABI, as a test drives it: life CONFIG PACKAGE. Prints what it sees, a fact a line. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "lightkeeper.h"

static lk_error error;

static int failed(const char *what)
{
    printf("%s: status %d reason %s\n", what, (int)error.status, error.reason);
    fprintf(stderr, "%s: %s\n  %s\n", what, error.message, error.next_step);
    return 1;
}

int main(int argc, char **argv)
{
    lk_agent *agent, *second;
    if (argc != 3)
        return 2;
    printf("version %s\n", lk_version());
    if (lk_start(argv[1], &agent, &error) != LK_OK)
        return failed("start");
    if (lk_start(argv[1], &second, &error) != LK_OK) /* the state folder is taken */
        failed("second start");
    if (lk_load_model(agent, "/nowhere", "m", &error) != LK_OK)
        failed("load of nothing");
    if (lk_load_model(agent, argv[2], "m", &error) != LK_OK)
        return failed("load");
    if (lk_load_model(agent, argv[2], "m", &error) != LK_OK)
        failed("load again");

    char names[2][LK_MODEL_NAME_BYTES];
    size_t count = 0;
    if (lk_list_models(agent, names, &count, &error) != LK_OK)
        printf("list without room: status %d count %zu\n", (int)error.status, count);
    count = 2;
    if (lk_list_models(agent, names, &count, &error) != LK_OK)
        return failed("list");
    printf("models %zu first %s\n", count, names[0]);

    char url[LK_PATH_BYTES];
    lk_tensor_description in[2], out[2];
    size_t ins = 2, outs = 2;
    if (lk_describe_model(agent, "m", url, sizeof url, in, &ins, out, &outs, &error) != LK_OK)
        return failed("describe");
    printf("described %zu %s %d [%" PRId32 ",%" PRId32 "] %zu %s\n", ins, in[0].name, (int)in[0].data_type, in[0].shape[0],
           in[0].shape[1], outs, out[0].name);

    const float values[4] = {1, 2, 3, 4};
    const int32_t shape[2] = {1, 4};
    lk_tensor input = {"x", LK_FLOAT32, shape, 2, values, sizeof values};
    float answer[4] = {0};
    lk_output output = {.data = answer, .capacity_bytes = sizeof answer};
    outs = 1;
    if (lk_predict(agent, "m", &input, 1, &output, &outs, &error) != LK_OK)
        return failed("predict");
    printf("predicted %s %g %g %g %g in %zu bytes\n", output.description.name, answer[0], answer[1], answer[2], answer[3],
           output.size_bytes);

    output.capacity_bytes = 3;
    if (lk_predict(agent, "m", &input, 1, &output, &outs, &error) != LK_OK)
        printf("predict without room: status %d needs %zu\n", (int)error.status, output.size_bytes);
    output.capacity_bytes = sizeof answer;

    lk_tensor bare = {NULL, LK_UINT8, NULL, 0, values, sizeof values}; /* by position, as the model has it */
    if (lk_predict(agent, "m", &bare, 1, &output, &outs, &error) != LK_OK)
        return failed("predict by position");
    lk_tensor odd = {"x", LK_FLOAT32, shape, 2, values, 7};
    if (lk_predict(agent, "m", &odd, 1, &output, &outs, &error) != LK_OK)
        failed("predict of too few bytes");
    if (lk_predict(agent, "nobody", &input, 1, &output, &outs, &error) != LK_OK)
        failed("predict of nothing");
    if (lk_predict(agent, "\xff\xfe", &input, 1, &output, &outs, &error) != LK_OK)
        failed("predict of no UTF-8");
    if (lk_predict(agent, NULL, &input, 1, &output, &outs, NULL) != LK_INVALID_ARGUMENT)
        return 1;

    lk_tensor result = {"y", LK_FLOAT32, shape, 2, answer, sizeof answer};
    lk_auxiliary note = {"note.json", "{}", 2};
    lk_capture capture = {.model_name = "m", .capture_id = "capture1", .input_tensors = &input, .input_tensors_count = 1,
                          .output_tensors = &result, .output_tensors_count = 1, .inputs = &note, .inputs_count = 1};
    if (lk_capture_data(agent, &capture, &error) != LK_OK)
        return failed("capture");
    if (lk_capture_data(agent, &capture, &error) != LK_OK)
        failed("capture again");
    lk_capture_status status = LK_CAPTURE_NOT_FOUND;
    if (lk_get_capture_data_status(agent, "capture1", &status, &error) != LK_OK)
        return failed("capture status");
    printf("captured %d\n", status == LK_CAPTURE_IN_PROGRESS || status == LK_CAPTURE_SUCCESS);
    lk_get_capture_data_status(agent, "nobody", &status, &error);
    printf("unknown capture %d\n", (int)status);

    if (lk_unload_model(agent, "m", &error) != LK_OK)
        return failed("unload");
    if (lk_unload_model(agent, "m", &error) != LK_OK)
        failed("unload again");
    if (lk_stop(agent, &error) != LK_OK)
        return failed("stop");
    if (lk_start(argv[1], &agent, &error) != LK_OK) /* the folder is free again */
        return failed("start again");
    if (lk_stop(agent, &error) != LK_OK)
        return failed("stop again");
    puts("done");
    return 0;
}

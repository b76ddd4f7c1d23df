/* The C ABI: include/lightkeeper.h over the module `lightkeeper.embedded`, which holds every line of logic.
 *
 * Each call takes the interpreter, hands plain values over, and gets back a tuple: (status, reason, message, next step,
 * result). Inputs are given as views of the caller's memory, which end with the call. Invariants: no reference to Python
 * is kept but `module` and the handles; no function is entered with an exception set; nothing here outlives a call.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../include/lightkeeper.h"
#include "runtime.h"
#include "system.h"

#ifndef LK_VERSION
#error "compile with -DLK_VERSION=\"N.N.N\", the version of the package lightkeeper"
#endif

struct lk_agent {
    PyObject *handle;
};

enum { STATUS, REASON, MESSAGE, NEXT_STEP, RESULT };

static PyObject *module; /* lightkeeper.embedded; set once, under the system's lock */

/* --- what is told ------------------------------------------------------------------------------------------------ */

static void cut(char *target, size_t size, const char *text)
{
    snprintf(target, size, "%s", text != NULL ? text : "");
}

static lk_status tell(lk_error *error, lk_status status, const char *reason, const char *message, const char *next_step)
{
    if (error != NULL) {
        error->status = status;
        cut(error->reason, sizeof error->reason, reason);
        cut(error->message, sizeof error->message, message);
        cut(error->next_step, sizeof error->next_step, next_step);
    }
    return status;
}

static lk_status done(lk_error *error)
{
    return tell(error, LK_OK, "", "", "");
}

static lk_status missing(lk_error *error, const char *argument)
{
    char message[128];
    snprintf(message, sizeof message, "the argument %s is NULL", argument);
    return tell(error, LK_INVALID_ARGUMENT, "ARGUMENT_MISSING", message, "see the comment of the function in lightkeeper.h");
}

/* What Python could not even tell, such as a lack of memory; its traceback goes to standard error. */
static lk_status fault(lk_error *error)
{
    PyErr_Print();
    return tell(error, LK_INTERNAL, "UNEXPECTED", "the call failed inside the library; standard error has the rest",
                "report it, with what standard error says");
}

static lk_status too_small(lk_error *error, const char *what)
{
    char message[128];
    snprintf(message, sizeof message, "the room for %s is too small", what);
    return tell(error, LK_BUFFER_TOO_SMALL, "BUFFER_TOO_SMALL", message, "call again with the size that was written beside it");
}

/* --- Python -------------------------------------------------------------------------------------------------------- */

/* Call a function of `module` with a tuple of arguments, which it takes over. Returns the tuple that comes back, or NULL
 * where `*status` already says everything. */
static PyObject *call(const char *function, PyObject *arguments, lk_status *status, lk_error *error)
{
    if (arguments == NULL) {
        PyErr_Clear();
        *status = tell(error, LK_INVALID_ARGUMENT, "ARGUMENT_INVALID", "a string is not UTF-8, or memory is short",
                       "give strings in UTF-8");
        return NULL;
    }
    PyObject *callable = PyObject_GetAttrString(module, function);
    PyObject *answer = callable != NULL ? PyObject_CallObject(callable, arguments) : NULL;
    if (callable != NULL)
        Py_DecRef(callable);
    Py_DecRef(arguments);
    if (answer == NULL) {
        *status = fault(error);
        return NULL;
    }
    *status = (lk_status)PyLong_AsLong(PyTuple_GetItem(answer, STATUS));
    if (*status == LK_OK) {
        done(error);
        return answer;
    }
    tell(error, *status, PyUnicode_AsUTF8AndSize(PyTuple_GetItem(answer, REASON), NULL),
         PyUnicode_AsUTF8AndSize(PyTuple_GetItem(answer, MESSAGE), NULL),
         PyUnicode_AsUTF8AndSize(PyTuple_GetItem(answer, NEXT_STEP), NULL));
    PyErr_Clear(); /* of a text that is no UTF-8 */
    Py_DecRef(answer);
    return NULL;
}

/* Put a value into a tuple that is being made; -1 where the value could not be made. */
static int put(PyObject *tuple, Py_ssize_t index, PyObject *value)
{
    return value != NULL ? PyTuple_SetItem(tuple, index, value) : -1;
}

static PyObject *none(void)
{
    return Py_GetConstant(PY_CONSTANT_NONE);
}

static PyObject *text(const char *value)
{
    return value != NULL ? PyUnicode_FromString(value) : none();
}

/* A view of the caller's memory. It is read-only, and ends with the call. */
static PyObject *view_of(const void *data, size_t size)
{
    return PyMemoryView_FromMemory(data != NULL ? (char *)data : (char *)"", (Py_ssize_t)size, PyBUF_READ);
}

static PyObject *shape_of(const lk_tensor *tensor)
{
    if (tensor->shape == NULL)
        return none();
    PyObject *shape = PyTuple_New((Py_ssize_t)tensor->rank);
    for (size_t axis = 0; shape != NULL && axis < tensor->rank; axis++)
        if (put(shape, (Py_ssize_t)axis, PyLong_FromLongLong(tensor->shape[axis])) < 0) {
            Py_DecRef(shape);
            return NULL;
        }
    return shape;
}

static PyObject *tensor_of(const lk_tensor *tensor)
{
    PyObject *made = PyTuple_New(4);
    if (made == NULL)
        return NULL;
    if (put(made, 0, text(tensor->name)) < 0 || put(made, 1, PyLong_FromLongLong(tensor->data_type)) < 0
        || put(made, 2, shape_of(tensor)) < 0 || put(made, 3, view_of(tensor->data, tensor->size_bytes)) < 0) {
        Py_DecRef(made);
        return NULL;
    }
    return made;
}

static PyObject *auxiliary_of(const lk_auxiliary *auxiliary)
{
    PyObject *made = PyTuple_New(2);
    if (made == NULL)
        return NULL;
    if (put(made, 0, text(auxiliary->name)) < 0 || put(made, 1, view_of(auxiliary->data, auxiliary->size_bytes)) < 0) {
        Py_DecRef(made);
        return NULL;
    }
    return made;
}

static PyObject *tensors_of(const lk_tensor *tensors, size_t count)
{
    PyObject *made = PyTuple_New((Py_ssize_t)count);
    for (size_t index = 0; made != NULL && index < count; index++)
        if (put(made, (Py_ssize_t)index, tensor_of(&tensors[index])) < 0) {
            Py_DecRef(made);
            return NULL;
        }
    return made;
}

static PyObject *auxiliaries_of(const lk_auxiliary *auxiliaries, size_t count)
{
    PyObject *made = PyTuple_New((Py_ssize_t)count);
    for (size_t index = 0; made != NULL && index < count; index++)
        if (put(made, (Py_ssize_t)index, auxiliary_of(&auxiliaries[index])) < 0) {
            Py_DecRef(made);
            return NULL;
        }
    return made;
}

/* A tuple of up to `count` values, each of which is taken over; NULL where one could not be made. */
static PyObject *arguments_of(size_t count, PyObject **values)
{
    PyObject *made = PyTuple_New((Py_ssize_t)count);
    int broken = made == NULL;
    for (size_t index = 0; index < count; index++) {
        if (broken && values[index] != NULL)
            Py_DecRef(values[index]);
        else if (!broken && put(made, (Py_ssize_t)index, values[index]) < 0)
            broken = 1;
    }
    if (broken && made != NULL) {
        Py_DecRef(made);
        made = NULL;
    }
    return made;
}

static PyObject *handle_of(lk_agent *agent)
{
    Py_IncRef(agent->handle);
    return agent->handle;
}

/* --- what comes back ------------------------------------------------------------------------------------------------ */

static int copy_description(PyObject *tensor, lk_tensor_description *description)
{
    PyObject *shape = PyTuple_GetItem(tensor, 2);
    Py_ssize_t rank = PyTuple_Size(shape);
    if (rank < 0 || rank > LK_RANK_MAXIMUM)
        return -1;
    cut(description->name, sizeof description->name, PyUnicode_AsUTF8AndSize(PyTuple_GetItem(tensor, 0), NULL));
    description->data_type = (lk_data_type)PyLong_AsLong(PyTuple_GetItem(tensor, 1));
    description->rank = (size_t)rank;
    for (Py_ssize_t axis = 0; axis < rank; axis++)
        description->shape[axis] = (int32_t)PyLong_AsLong(PyTuple_GetItem(shape, axis));
    return 0;
}

static lk_status copy_descriptions(PyObject *tensors, lk_tensor_description *room, size_t *count, const char *what,
                                   lk_error *error)
{
    size_t given = *count;
    *count = (size_t)PyTuple_Size(tensors);
    if (*count > given || (room == NULL && *count > 0))
        return too_small(error, what);
    for (size_t index = 0; index < *count; index++)
        if (copy_description(PyTuple_GetItem(tensors, (Py_ssize_t)index), &room[index]) < 0)
            return tell(error, LK_UNIMPLEMENTED, "RANK_TOO_HIGH", "a tensor has more dimensions than lightkeeper.h carries",
                        "use the socket's API for this model");
    return LK_OK;
}

/* Copy an output's bytes where they fit; 0, or 1 where they do not, or -1 with an exception. */
static int copy_output(PyObject *tensor, lk_output *output)
{
    Py_buffer bytes;
    if (PyObject_GetBuffer(PyTuple_GetItem(tensor, 3), &bytes, PyBUF_SIMPLE) < 0)
        return -1;
    output->size_bytes = (size_t)bytes.len;
    int fits = output->size_bytes <= output->capacity_bytes && (output->data != NULL || bytes.len == 0);
    if (fits && bytes.len > 0)
        memcpy(output->data, bytes.buf, (size_t)bytes.len);
    PyBuffer_Release(&bytes);
    return fits ? 0 : 1;
}

static lk_status copy_outputs(PyObject *tensors, lk_output *outputs, size_t *count, lk_error *error)
{
    size_t given = *count;
    int small = 0;
    *count = (size_t)PyTuple_Size(tensors);
    if (*count > given)
        return too_small(error, "the outputs");
    for (size_t index = 0; index < *count; index++) {
        PyObject *tensor = PyTuple_GetItem(tensors, (Py_ssize_t)index);
        if (copy_description(tensor, &outputs[index].description) < 0)
            return tell(error, LK_UNIMPLEMENTED, "RANK_TOO_HIGH", "an output has more dimensions than lightkeeper.h carries",
                        "use the socket's API for this model");
        int copied = copy_output(tensor, &outputs[index]);
        if (copied < 0)
            return fault(error);
        small |= copied;
    }
    return small ? too_small(error, "an output") : LK_OK;
}

/* --- the runtime ------------------------------------------------------------------------------------------------------ */

static lk_status lacking(lk_error *error, const char *message)
{
    return tell(error, LK_FAILED_PRECONDITION, "RUNTIME_MISSING", message,
                "keep the archive's folder whole, and no other Python in the process");
}

/* Start the runtime where nobody has, and import the module. Leaves the interpreter to whoever asks next. */
static lk_status have_runtime(lk_error *error)
{
    char root[LK_PATH_BYTES], self[LK_PATH_BYTES], reason[512];
    if (system_library(self, sizeof self) < 0)
        return lacking(error, "the path of this library cannot be found");
    if (runtime_load(self, root, sizeof root, reason, sizeof reason) < 0)
        return lacking(error, reason);
    if (!Py_IsInitialized()) {
        PyInitConfig *config = runtime_configure(root, self, reason, sizeof reason);
        if (config == NULL || runtime_start(config, reason, sizeof reason) < 0)
            return lacking(error, reason);
        PyEval_SaveThread();
    }
    PyGILState_STATE state = PyGILState_Ensure();
    module = PyImport_ImportModule("lightkeeper.embedded");
    lk_status status = module != NULL ? LK_OK : fault(error);
    PyGILState_Release(state);
    return status;
}

/* --- the API ---------------------------------------------------------------------------------------------------------- */

/* Call a function whose result is of no interest. */
static lk_status simple(const char *function, size_t count, PyObject **values, lk_error *error)
{
    lk_status status;
    PyObject *answer = call(function, arguments_of(count, values), &status, error);
    if (answer != NULL)
        Py_DecRef(answer);
    return status;
}

const char *lk_version(void)
{
    return LK_VERSION;
}

lk_status lk_start(const char *config_path, lk_agent **agent, lk_error *error)
{
    if (config_path == NULL)
        return missing(error, "config_path");
    if (agent == NULL)
        return missing(error, "agent");
    *agent = NULL;
    system_lock();
    lk_status status = module != NULL ? LK_OK : have_runtime(error);
    system_unlock();
    if (status != LK_OK)
        return status;
    lk_agent *made = malloc(sizeof *made);
    if (made == NULL)
        return tell(error, LK_RESOURCE_EXHAUSTED, "MEMORY_SHORT", "there is no memory for a handle", "free some memory");
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject *values[] = {text(config_path)};
    PyObject *answer = call("start", arguments_of(1, values), &status, error);
    if (answer != NULL) {
        made->handle = PyTuple_GetItem(answer, RESULT);
        Py_IncRef(made->handle);
        Py_DecRef(answer);
        *agent = made;
    } else {
        free(made);
    }
    PyGILState_Release(state);
    return status;
}

lk_status lk_stop(lk_agent *agent, lk_error *error)
{
    if (agent == NULL)
        return missing(error, "agent");
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject *values[] = {agent->handle}; /* taken over: the handle ends here */
    lk_status status = simple("stop", 1, values, error);
    PyGILState_Release(state);
    free(agent);
    return status;
}

lk_status lk_load_model(lk_agent *agent, const char *url, const char *name, lk_error *error)
{
    if (agent == NULL || url == NULL || name == NULL)
        return missing(error, agent == NULL ? "agent" : url == NULL ? "url" : "name");
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject *values[] = {handle_of(agent), text(url), text(name)};
    lk_status status = simple("load_model", 3, values, error);
    PyGILState_Release(state);
    return status;
}

lk_status lk_unload_model(lk_agent *agent, const char *name, lk_error *error)
{
    if (agent == NULL || name == NULL)
        return missing(error, agent == NULL ? "agent" : "name");
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject *values[] = {handle_of(agent), text(name)};
    lk_status status = simple("unload_model", 2, values, error);
    PyGILState_Release(state);
    return status;
}

lk_status lk_list_models(lk_agent *agent, char (*names)[LK_MODEL_NAME_BYTES], size_t *count, lk_error *error)
{
    if (agent == NULL || count == NULL)
        return missing(error, agent == NULL ? "agent" : "count");
    lk_status status;
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject *values[] = {handle_of(agent)};
    PyObject *answer = call("list_models", arguments_of(1, values), &status, error);
    if (answer != NULL) {
        PyObject *found = PyTuple_GetItem(answer, RESULT);
        size_t given = *count;
        *count = (size_t)PyTuple_Size(found);
        if (*count > given || (names == NULL && *count > 0))
            status = too_small(error, "the names");
        else
            for (size_t index = 0; index < *count; index++)
                cut(names[index], LK_MODEL_NAME_BYTES,
                    PyUnicode_AsUTF8AndSize(PyTuple_GetItem(found, (Py_ssize_t)index), NULL));
        Py_DecRef(answer);
    }
    PyGILState_Release(state);
    return status;
}

lk_status lk_describe_model(lk_agent *agent, const char *name, char *url, size_t url_size, lk_tensor_description *inputs,
                            size_t *inputs_count, lk_tensor_description *outputs, size_t *outputs_count, lk_error *error)
{
    if (agent == NULL || name == NULL || inputs_count == NULL || outputs_count == NULL)
        return missing(error, agent == NULL ? "agent" : name == NULL ? "name" : "inputs_count or outputs_count");
    lk_status status;
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject *values[] = {handle_of(agent), text(name)};
    PyObject *answer = call("describe_model", arguments_of(2, values), &status, error);
    if (answer != NULL) {
        PyObject *found = PyTuple_GetItem(answer, RESULT);
        if (url != NULL)
            cut(url, url_size, PyUnicode_AsUTF8AndSize(PyTuple_GetItem(found, 0), NULL));
        status = copy_descriptions(PyTuple_GetItem(found, 1), inputs, inputs_count, "the inputs", error);
        lk_status other = copy_descriptions(PyTuple_GetItem(found, 2), outputs, outputs_count, "the outputs",
                                            status == LK_OK ? error : NULL);
        status = status != LK_OK ? status : other;
        Py_DecRef(answer);
    }
    PyGILState_Release(state);
    return status;
}

lk_status lk_predict(lk_agent *agent, const char *name, const lk_tensor *inputs, size_t inputs_count, lk_output *outputs,
                     size_t *outputs_count, lk_error *error)
{
    if (agent == NULL || name == NULL || outputs_count == NULL)
        return missing(error, agent == NULL ? "agent" : name == NULL ? "name" : "outputs_count");
    if ((inputs == NULL && inputs_count > 0) || (outputs == NULL && *outputs_count > 0))
        return missing(error, inputs == NULL && inputs_count > 0 ? "inputs" : "outputs");
    lk_status status;
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject *values[] = {handle_of(agent), text(name), tensors_of(inputs, inputs_count)};
    PyObject *answer = call("predict", arguments_of(3, values), &status, error);
    if (answer != NULL) {
        status = copy_outputs(PyTuple_GetItem(answer, RESULT), outputs, outputs_count, error);
        Py_DecRef(answer);
    }
    PyGILState_Release(state);
    return status;
}

lk_status lk_capture_data(lk_agent *agent, const lk_capture *capture, lk_error *error)
{
    if (agent == NULL || capture == NULL)
        return missing(error, agent == NULL ? "agent" : "capture");
    if (capture->model_name == NULL || capture->capture_id == NULL)
        return missing(error, capture->model_name == NULL ? "capture->model_name" : "capture->capture_id");
    if ((capture->input_tensors == NULL && capture->input_tensors_count > 0)
        || (capture->output_tensors == NULL && capture->output_tensors_count > 0)
        || (capture->inputs == NULL && capture->inputs_count > 0)
        || (capture->outputs == NULL && capture->outputs_count > 0))
        return missing(error, "one of the capture's lists");
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject *values[] = {
        handle_of(agent),
        text(capture->model_name),
        text(capture->capture_id),
        PyLong_FromLongLong(capture->seconds),
        PyLong_FromLongLong(capture->nanos),
        tensors_of(capture->input_tensors, capture->input_tensors_count),
        tensors_of(capture->output_tensors, capture->output_tensors_count),
        auxiliaries_of(capture->inputs, capture->inputs_count),
        auxiliaries_of(capture->outputs, capture->outputs_count),
    };
    lk_status status = simple("capture_data", sizeof values / sizeof *values, values, error);
    PyGILState_Release(state);
    return status;
}

lk_status lk_get_capture_data_status(lk_agent *agent, const char *capture_id, lk_capture_status *status, lk_error *error)
{
    if (agent == NULL || capture_id == NULL || status == NULL)
        return missing(error, agent == NULL ? "agent" : capture_id == NULL ? "capture_id" : "status");
    lk_status ended;
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject *values[] = {handle_of(agent), text(capture_id)};
    PyObject *answer = call("capture_data_status", arguments_of(2, values), &ended, error);
    if (answer != NULL) {
        *status = (lk_capture_status)PyLong_AsLong(PyTuple_GetItem(answer, RESULT));
        Py_DecRef(answer);
    }
    PyGILState_Release(state);
    return ended;
}

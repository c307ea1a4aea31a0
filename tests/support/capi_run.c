/* Loads a SavedModel by TensorFlow's C API, which is what TensorFlow Serving
 * calls, and runs it on one image: no Python anywhere.
 *
 *   capi_run SAVED_MODEL INPUT_OP OUTPUT_OP OUTPUT_INDEX IMAGE
 *
 * prints the first row of a float32 output [1, K]. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"
#include "tensorflow/c/tf_tstring.h"

static void check(TF_Status* status, const char* what) {
  if (TF_GetCode(status) == TF_OK) return;
  fprintf(stderr, "%s: %d %s\n", what, TF_GetCode(status), TF_Message(status));
  exit(1);
}

static char* read_file(const char* path, long* size) {
  FILE* file = fopen(path, "rb");
  fseek(file, 0, SEEK_END);
  *size = ftell(file);
  rewind(file);
  char* data = malloc(*size);
  if (fread(data, 1, *size, file) != (size_t)*size) exit(2);
  fclose(file);
  return data;
}

int main(int argc, char** argv) {
  if (argc != 6) return 2;
  TF_Status* status = TF_NewStatus();
  TF_Graph* graph = TF_NewGraph();
  TF_SessionOptions* options = TF_NewSessionOptions();
  const char* tags[] = {"serve"};
  TF_Session* session = TF_LoadSessionFromSavedModel(
      options, NULL, argv[1], tags, 1, graph, NULL, status);
  check(status, "load");

  long size;
  char* data = read_file(argv[5], &size);
  int64_t shape[] = {1};
  TF_Tensor* image = TF_AllocateTensor(TF_STRING, shape, 1, sizeof(TF_TString));
  TF_TString* text = TF_TensorData(image);
  TF_TString_Init(text);
  TF_TString_Copy(text, data, size);

  TF_Output in = {TF_GraphOperationByName(graph, argv[2]), 0};
  TF_Output out = {TF_GraphOperationByName(graph, argv[3]), atoi(argv[4])};
  if (!in.oper || !out.oper) {
    fprintf(stderr, "no such op\n");
    return 3;
  }
  TF_Tensor* found = NULL;
  TF_SessionRun(session, NULL, &in, &image, 1, &out, &found, 1, NULL, 0, NULL,
                status);
  check(status, "run");
  const float* values = TF_TensorData(found);
  for (int64_t k = 0; k < TF_Dim(found, 1); ++k) printf("%.9g\n", values[k]);
  return 0;
}

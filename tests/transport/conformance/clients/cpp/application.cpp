// An application of 2021, as they were built around the old agent: its tensors lie in a System V segment that it makes,
// fills, and closes for writing (mode 0400) before it hands the id over, with size 0 for "as much as the model takes".
#include "application.h"

#include <sys/ipc.h>
#include <sys/shm.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <ctime>
#include <memory>
#include <thread>

#include "edge_agent_2021.grpc.pb.h"

namespace edge = AWS::SageMaker::Edge;

namespace {

constexpr float kInput[] = {1, 2, 3, 4};
constexpr auto kDeadline = std::chrono::seconds(30);
constexpr auto kPoll = std::chrono::milliseconds(20);

class Segment {
 public:
  Segment() : id_(shmget(IPC_PRIVATE, sizeof(kInput), IPC_CREAT | IPC_EXCL | 0600)) {
    if (id_ < 0) return;
    void* place = shmat(id_, nullptr, 0);
    if (place == reinterpret_cast<void*>(-1)) return;
    std::memcpy(place, kInput, sizeof(kInput));
    shmdt(place);
    shmid_ds state{};
    if (shmctl(id_, IPC_STAT, &state) != 0) return;
    state.shm_perm.mode = 0400;
    ready_ = shmctl(id_, IPC_SET, &state) == 0;
  }
  ~Segment() {
    if (id_ >= 0) shmctl(id_, IPC_RMID, nullptr);
  }
  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;

  bool ready() const { return ready_; }
  int id() const { return id_; }

 private:
  int id_;
  bool ready_ = false;
};

void describe(const Segment& segment, const edge::TensorMetadata& metadata, edge::Tensor* tensor) {
  *tensor->mutable_tensor_metadata() = metadata;
  tensor->mutable_shared_memory_handle()->set_segment_id(segment.id());
  tensor->mutable_shared_memory_handle()->set_offset(0);
  tensor->mutable_shared_memory_handle()->set_size(0);
}

class Client {
 public:
  explicit Client(const std::string& address)
      : stub_(edge::Agent::NewStub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()))) {}

  template <typename Request, typename Response>
  grpc::Status call(grpc::Status (edge::Agent::Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                    const Request& request, Response* response) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kDeadline);
    return (stub_.get()->*method)(&context, request, response);
  }

 private:
  std::unique_ptr<edge::Agent::Stub> stub_;
};

}  // namespace

grpc::Status run_application(const std::string& address, const lightkeeper::conformance::Application& order,
                             lightkeeper::conformance::Report* report) {
  const Segment segment;
  if (!segment.ready()) return {grpc::StatusCode::INTERNAL, std::string("no segment: ") + std::strerror(errno)};
  Client client(address);
  grpc::Status status;

  edge::LoadModelRequest load;
  edge::LoadModelResponse loaded;
  load.set_url(order.url());
  load.set_name(order.model());
  status = client.call(&edge::Agent::Stub::LoadModel, load, &loaded);
  if (!status.ok()) return status;

  edge::ListModelsResponse list;
  status = client.call(&edge::Agent::Stub::ListModels, edge::ListModelsRequest(), &list);
  if (!status.ok()) return status;
  for (const edge::Model& model : list.models()) report->add_models(model.name());

  edge::PredictRequest predict;
  edge::PredictResponse predicted;
  predict.set_name(order.model());
  describe(segment, loaded.model().input_tensor_metadatas(0), predict.add_tensors());
  status = client.call(&edge::Agent::Stub::Predict, predict, &predicted);
  if (!status.ok()) return status;
  const std::string& bytes = predicted.tensors(0).byte_data();
  report->mutable_outputs()->Resize(static_cast<int>(bytes.size() / sizeof(float)), 0);
  std::memcpy(report->mutable_outputs()->mutable_data(), bytes.data(), bytes.size());

  edge::CaptureDataRequest capture;
  edge::CaptureDataResponse captured;
  capture.set_model_name(order.model());
  capture.set_capture_id(order.capture_id());
  capture.mutable_inference_timestamp()->set_seconds(std::time(nullptr));
  describe(segment, loaded.model().input_tensor_metadatas(0), capture.add_input_tensors());
  *capture.mutable_output_tensors() = predicted.tensors();
  status = client.call(&edge::Agent::Stub::CaptureData, capture, &captured);
  if (!status.ok()) return status;

  edge::GetCaptureDataStatusRequest ask;
  edge::GetCaptureDataStatusResponse state;
  ask.set_capture_id(order.capture_id());
  const auto give_up = std::chrono::steady_clock::now() + kDeadline;
  do {
    std::this_thread::sleep_for(kPoll);
    status = client.call(&edge::Agent::Stub::GetCaptureDataStatus, ask, &state);
    if (!status.ok()) return status;
  } while (state.status() != edge::SUCCESS && std::chrono::steady_clock::now() < give_up);
  if (state.status() != edge::SUCCESS) return {grpc::StatusCode::INTERNAL, "the capture was not delivered"};

  edge::UnLoadModelRequest unload;
  edge::UnLoadModelResponse unloaded;
  unload.set_name(order.model());
  status = client.call(&edge::Agent::Stub::UnLoadModel, unload, &unloaded);
  if (!status.ok()) return status;

  return client.call(&edge::Agent::Stub::Predict, predict, &predicted);
}

// A gRPC server in C++ that answers any call with the bytes it got: what a compiled server takes to carry a call, and
// the yardstick that a Python handler under the native wire is held against. It parses nothing.
//
// Usage: echo sync|async|callback ADDRESS THREADS
//   sync      gRPC's own pool of threads, THREADS pollers
//   async     THREADS threads, each with a completion queue of its own
//   callback  gRPC's callback API; THREADS is not used
// Serves ADDRESS (unix:PATH or HOST:PORT) until SIGTERM.
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/support/method_handler.h>

#include <csignal>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr int kMessageLimitBytes = 64 * 1024 * 1024;
constexpr int kCallsAhead = 64;  // calls each completion queue is ready to take before the first is answered
constexpr char kMethod[] = "/AWS.SageMaker.Edge.Agent/Predict";

class SyncEcho final : public grpc::Service {
 public:
  SyncEcho() {
    AddMethod(new grpc::internal::RpcServiceMethod(
        kMethod, grpc::internal::RpcMethod::NORMAL_RPC,
        new grpc::internal::RpcMethodHandler<SyncEcho, grpc::ByteBuffer, grpc::ByteBuffer>(
            [](SyncEcho*, grpc::ServerContext*, const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
              *response = *request;
              return grpc::Status::OK;
            },
            this)));
  }
};

class CallbackEcho final : public grpc::CallbackGenericService {
  class Reactor final : public grpc::ServerGenericBidiReactor {
   public:
    Reactor() { StartRead(&message_); }

   private:
    void OnReadDone(bool ok) override {
      if (ok) {
        StartWriteAndFinish(&message_, grpc::WriteOptions(), grpc::Status::OK);
      } else {
        Finish(grpc::Status(grpc::StatusCode::CANCELLED, "no request"));
      }
    }
    void OnDone() override { delete this; }

    grpc::ByteBuffer message_;
  };

  grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext*) override { return new Reactor; }
};

// One call at a time of a completion queue's thread: accepted, read, answered, and then the place is taken anew.
class AsyncCall {
 public:
  AsyncCall(grpc::AsyncGenericService* service, grpc::ServerCompletionQueue* queue)
      : service_(service), queue_(queue), stream_(&context_) {
    service_->RequestCall(&context_, &stream_, queue_, queue_, this);
  }

  void Proceed(bool ok) {
    if (!ok && step_ != Step::kAnswered) {
      delete this;
      return;
    }
    switch (step_) {
      case Step::kAccepted:
        new AsyncCall(service_, queue_);
        step_ = Step::kRead;
        stream_.Read(&message_, this);
        break;
      case Step::kRead:
        step_ = Step::kAnswered;
        stream_.WriteAndFinish(message_, grpc::WriteOptions(), grpc::Status::OK, this);
        break;
      case Step::kAnswered:
        delete this;
        break;
    }
  }

 private:
  enum class Step { kAccepted, kRead, kAnswered };

  grpc::AsyncGenericService* service_;
  grpc::ServerCompletionQueue* queue_;
  grpc::GenericServerContext context_;
  grpc::GenericServerAsyncReaderWriter stream_;
  grpc::ByteBuffer message_;
  Step step_ = Step::kAccepted;
};

void Drive(grpc::ServerCompletionQueue* queue) {
  void* call = nullptr;
  bool ok = false;
  while (queue->Next(&call, &ok)) static_cast<AsyncCall*>(call)->Proceed(ok);
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 4) {
    std::cerr << "usage: echo sync|async|callback ADDRESS THREADS\n";
    return 2;
  }
  const std::string way = arguments[1];
  const std::string address = arguments[2];
  const int threads = std::atoi(arguments[3]);

  sigset_t end;  // blocked before gRPC starts a thread, for sigwait
  sigemptyset(&end);
  sigaddset(&end, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &end, nullptr);

  grpc::ServerBuilder builder;
  builder.AddListeningPort(address, grpc::InsecureServerCredentials());
  builder.SetMaxReceiveMessageSize(kMessageLimitBytes);
  SyncEcho sync;
  CallbackEcho callback;
  grpc::AsyncGenericService async;
  std::vector<std::unique_ptr<grpc::ServerCompletionQueue>> queues;
  if (way == "sync") {
    builder.SetSyncServerOption(grpc::ServerBuilder::SyncServerOption::NUM_CQS, threads);
    builder.RegisterService(&sync);
  } else if (way == "callback") {
    builder.RegisterCallbackGenericService(&callback);
  } else if (way == "async") {
    builder.RegisterAsyncGenericService(&async);
    for (int number = 0; number < threads; ++number) queues.push_back(builder.AddCompletionQueue());
  } else {
    std::cerr << "echo: " << way << " is none of sync, async, callback\n";
    return 2;
  }
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (!server) {
    std::cerr << "echo: " << address << " cannot be served\n";
    return 1;
  }
  std::vector<std::thread> workers;
  for (auto& queue : queues) {
    for (int ahead = 0; ahead < kCallsAhead; ++ahead) new AsyncCall(&async, queue.get());
    workers.emplace_back(Drive, queue.get());
  }

  int signal = 0;
  sigwait(&end, &signal);
  server->Shutdown(std::chrono::system_clock::now());
  for (auto& queue : queues) queue->Shutdown();
  for (auto& worker : workers) worker.join();
  return 0;
}

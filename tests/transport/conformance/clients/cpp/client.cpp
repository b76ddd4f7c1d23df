// The client program in C++: reads orders (orders.proto) and reports what gRPC's C++ library makes of them.
#include <google/protobuf/util/json_util.h>
#include <grpc/grpc.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "application.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "orders.pb.h"

namespace {

using lightkeeper::conformance::Call;
using lightkeeper::conformance::Entry;
using lightkeeper::conformance::Order;
using lightkeeper::conformance::Report;
using Metadata = std::multimap<grpc::string_ref, grpc::string_ref>;

void tell(const Report& report) {
  static std::mutex one_at_a_time;
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string line;
  const auto status = google::protobuf::util::MessageToJsonString(report, &line, options);
  const std::lock_guard<std::mutex> lock(one_at_a_time);
  if (!status.ok()) std::cerr << "no report of order " << report.id() << ": " << status << std::endl;
  std::cout << line << std::endl;
}

void add_status(const grpc::Status& status, Report* report) {
  report->set_code(status.error_code());
  report->set_message(status.error_message());
  google::rpc::Status details;
  google::rpc::ErrorInfo info;
  if (!details.ParseFromString(status.error_details()) || details.details().empty() || !details.details(0).UnpackTo(&info)) return;
  report->mutable_refusal()->set_reason(info.reason());
  report->mutable_refusal()->set_domain(info.domain());
  *report->mutable_refusal()->mutable_metadata() = info.metadata();
}

void add_metadata(const Metadata& metadata, google::protobuf::RepeatedPtrField<Entry>* entries) {
  for (const auto& [key, value] : metadata) {
    Entry* entry = entries->Add();
    entry->set_key(key.data(), key.size());
    entry->set_value(value.data(), value.size());
  }
}

std::string bytes_of(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (!buffer.Valid() || !buffer.Dump(&slices).ok()) return bytes;
  for (const grpc::Slice& slice : slices) bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return bytes;
}

grpc::ByteBuffer buffer_of(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

std::shared_ptr<grpc::Channel> new_channel(const std::string& address, const Call& call) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetMaxReceiveMessageSize(-1);
  if (call.gzip()) arguments.SetCompressionAlgorithm(GRPC_COMPRESS_GZIP);
  if (call.keepalive_ms()) {
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, call.keepalive_ms());
    arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  }
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

struct Underway {
  int id;
  grpc::ClientContext context;
  grpc::Status status;
  grpc::ByteBuffer response;
  std::unique_ptr<grpc::GenericClientAsyncResponseReader> reader;
};

class Program {
 public:
  Program() : answers_([this] { read_answers(); }) { answers_.detach(); }

  void begin(const Order& order) {
    switch (order.order_case()) {
      case Order::kCall: return begin_call(order);
      case Order::kCancel: return cancel(order);
      case Order::kClose: return close(order);
      case Order::kApplication: return begin_application(order);
      default: std::cerr << "order " << order.id() << " orders nothing" << std::endl;
    }
  }

 private:
  void begin_call(const Order& order) {
    const Call& call = order.call();
    auto& channel = channels_[{order.address(), call.connection()}];
    if (!channel) channel = new_channel(order.address(), call);
    auto underway = std::make_shared<Underway>();
    underway->id = order.id();
    underway->context.set_wait_for_ready(call.wait_for_ready());
    for (const Entry& entry : call.metadata()) underway->context.AddMetadata(entry.key(), entry.value());
    if (call.timeout_ms()) {
      underway->context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(call.timeout_ms()));
    }
    underway->reader = grpc::GenericStub(channel).PrepareUnaryCall(&underway->context, call.method(),
                                                                   buffer_of(call.body()), &queue_);
    {
      const std::lock_guard<std::mutex> lock(calls_mutex_);
      calls_[order.id()] = underway;
    }
    underway->reader->StartCall();
    underway->reader->Finish(&underway->response, &underway->status, underway.get());
  }

  void read_answers() {
    void* tag;
    bool ok;
    while (queue_.Next(&tag, &ok)) {
      const int id = static_cast<Underway*>(tag)->id;
      std::shared_ptr<Underway> underway;
      {
        const std::lock_guard<std::mutex> lock(calls_mutex_);
        underway = std::move(calls_[id]);
        calls_.erase(id);
      }
      Report report;
      report.set_id(id);
      add_status(underway->status, &report);
      add_metadata(underway->context.GetServerInitialMetadata(), report.mutable_initial_metadata());
      add_metadata(underway->context.GetServerTrailingMetadata(), report.mutable_trailing_metadata());
      if (underway->status.ok()) report.set_body(bytes_of(underway->response));
      underway.reset();
      tell(report);
    }
  }

  void cancel(const Order& order) {
    {
      const std::lock_guard<std::mutex> lock(calls_mutex_);
      const auto call = calls_.find(order.cancel().id());
      if (call != calls_.end()) call->second->context.TryCancel();
    }
    done(order);
  }

  void close(const Order& order) {
    for (auto channel = channels_.begin(); channel != channels_.end();) {
      channel = channel->first.first == order.address() ? channels_.erase(channel) : std::next(channel);
    }
    done(order);
  }

  void begin_application(const Order& order) {
    std::thread([order] {
      Report report;
      report.set_id(order.id());
      add_status(run_application(order.address(), order.application(), &report), &report);
      tell(report);
    }).detach();
  }

  static void done(const Order& order) {
    Report report;
    report.set_id(order.id());
    tell(report);
  }

  std::map<std::pair<std::string, std::string>, std::shared_ptr<grpc::Channel>> channels_;
  std::mutex calls_mutex_;
  std::map<int, std::shared_ptr<Underway>> calls_;
  grpc::CompletionQueue queue_;
  std::thread answers_;
};

}  // namespace

int main() {
  grpc_init();  // or the library shuts down with every last channel, which may take it ten seconds
  Program program;
  std::string line;
  while (std::getline(std::cin, line)) {
    Order order;
    const auto status = google::protobuf::util::JsonStringToMessage(line, &order);
    if (!status.ok()) {
      std::cerr << "not an order: " << status << std::endl;
      return 1;
    }
    program.begin(order);
  }
  std::_Exit(0);  // calls still under way are of no interest
}

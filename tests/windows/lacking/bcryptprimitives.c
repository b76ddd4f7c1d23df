/* bcryptprimitives.dll, which wine 8 has not: random bytes, for programs in Rust. */
__declspec(dllimport) unsigned char __stdcall SystemFunction036(void *buffer, unsigned long size);

__declspec(dllexport) int __stdcall ProcessPrng(unsigned char *buffer, unsigned long long size)
{
    return SystemFunction036(buffer, (unsigned long)size);
}

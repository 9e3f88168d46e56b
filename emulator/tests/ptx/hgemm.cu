#include <cuda_bf16.h>
#include <cuda_pipeline.h>
#include <stdint.h>
#define BM 64
#define BN 64
#define BK 32
extern "C" __global__ void __launch_bounds__(128) hgemm(const __nv_bfloat16* A,const __nv_bfloat16* B,float* C,int M,int N,int K){
  __shared__ __align__(16) __nv_bfloat16 As[2][BM][BK+8]; __shared__ __align__(16) __nv_bfloat16 Bs[2][BK][BN+8];
  int tid=threadIdx.x, lane=tid&31, w=tid>>5; int row0=blockIdx.y*BM,col0=blockIdx.x*BN;
  float acc[2][4][4]={};
  auto load=[&](int st,int k0){
    for(int i=tid;i<BM*BK/8;i+=128){int r=i/(BK/8),c=i%(BK/8)*8; unsigned s=__cvta_generic_to_shared(&As[st][r][c]); int ok=(row0+r<M)?16:0;
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"::"r"(s),"l"(A+(size_t)(ok?row0+r:0)*K+k0+c),"r"(ok));}
    for(int i=tid;i<BK*BN/8;i+=128){int r=i/(BN/8),c=i%(BN/8)*8; unsigned s=__cvta_generic_to_shared(&Bs[st][r][c]);
      asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;"::"r"(s),"l"(B+(size_t)(k0+r)*N+col0+c));}
    asm volatile("cp.async.commit_group;"); };
  int nk=K/BK; load(0,0);
  for(int t=0;t<nk;t++){ if(t+1<nk) load((t+1)&1,(t+1)*BK); else asm volatile("cp.async.commit_group;");
    asm volatile("cp.async.wait_group 1;"); __syncthreads();
    int st=t&1;
    for(int kk=0;kk<BK;kk+=16){ unsigned a[2][4],b[4][2];
      for(int i=0;i<2;i++){ unsigned s=__cvta_generic_to_shared(&As[st][(w>>1)*32+i*16+(lane&15)][kk+8*(lane>>4)]);
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];":"=r"(a[i][0]),"=r"(a[i][1]),"=r"(a[i][2]),"=r"(a[i][3]):"r"(s));}
      for(int j=0;j<4;j++){ unsigned s=__cvta_generic_to_shared(&Bs[st][kk+(lane&15)][(w&1)*32+j*8]);
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];":"=r"(b[j][0]),"=r"(b[j][1]):"r"(s));}
      for(int i=0;i<2;i++)for(int j=0;j<4;j++) asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};":"+f"(acc[i][j][0]),"+f"(acc[i][j][1]),"+f"(acc[i][j][2]),"+f"(acc[i][j][3]):"r"(a[i][0]),"r"(a[i][1]),"r"(a[i][2]),"r"(a[i][3]),"r"(b[j][0]),"r"(b[j][1]));
    }
    __syncthreads(); }
  for(int i=0;i<2;i++)for(int j=0;j<4;j++){ int r=row0+(w>>1)*32+i*16+lane/4,c=col0+(w&1)*32+j*8+(lane&3)*2;
    if(r<M) *(float2*)&C[(size_t)r*N+c]=make_float2(acc[i][j][0],acc[i][j][1]); if(r+8<M) *(float2*)&C[(size_t)(r+8)*N+c]=make_float2(acc[i][j][2],acc[i][j][3]); }
}

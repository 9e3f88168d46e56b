extern "C" __global__ void __launch_bounds__(256,2) sgemm(const float* __restrict__ A,const float* __restrict__ B,float* C,int M,int N,int K){
  __shared__ float As[8][128]; __shared__ float Bs[8][128];
  int tid=threadIdx.x; int tx=tid%16, ty=tid/16; float acc[8][8]={};
  int row0=blockIdx.y*128,col0=blockIdx.x*128;
  for(int k0=0;k0<K;k0+=8){
    { int r=tid/2,c=(tid%2)*4; float4 v=*(const float4*)&A[(row0+r)*K+k0+c]; As[c][r]=v.x;As[c+1][r]=v.y;As[c+2][r]=v.z;As[c+3][r]=v.w;
      int r2=tid/32,c2=(tid%32)*4; *(float4*)&Bs[r2][c2]=*(const float4*)&B[(k0+r2)*N+col0+c2]; }
    __syncthreads();
    #pragma unroll
    for(int k=0;k<8;k++){ float a[8],b[8];
      *(float4*)&a[0]=*(float4*)&As[k][ty*8]; *(float4*)&a[4]=*(float4*)&As[k][ty*8+4];
      *(float4*)&b[0]=*(float4*)&Bs[k][tx*4]; *(float4*)&b[4]=*(float4*)&Bs[k][64+tx*4];
      #pragma unroll
      for(int i=0;i<8;i++)
      #pragma unroll
      for(int j=0;j<8;j++) acc[i][j]+=a[i]*b[j]; }
    __syncthreads();
  }
  for(int i=0;i<8;i++){ *(float4*)&C[(row0+ty*8+i)*N+col0+tx*4]=*(float4*)&acc[i][0]; *(float4*)&C[(row0+ty*8+i)*N+col0+64+tx*4]=*(float4*)&acc[i][4]; }
}

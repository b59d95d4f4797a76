cp $CLIENTS/Token.java .
